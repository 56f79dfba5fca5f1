use std::net::IpAddr;

/// The addresses that a certificate may be used from (`source-address`): addresses and networks, with commas between.
///
/// ```
/// use sshbridge::certificate::SourceList;
///
/// let list: SourceList = "192.0.2.0/24,2001:db8::1".parse()?;
/// assert!(list.contains("192.0.2.7".parse()?));
/// assert!(!list.contains("198.51.100.1".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceList(Vec<Network>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl SourceList {
    /// Whether `address` is in one of the networks. An IPv4 address is the same when it is written as an IPv6 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl std::str::FromStr for SourceList {
    type Err = SourceListError;

    fn from_str(text: &str) -> Result<Self, SourceListError> {
        text.split(',')
            .map(Network::parse)
            .collect::<Option<_>>()
            .map(Self)
            .ok_or(SourceListError)
    }
}

impl Network {
    /// As OpenSSH, a network whose address has bits beyond its length is an error: which of the two is meant is unclear.
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                (address, Some(bits.parse().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = width(address);
        let bits = bits.unwrap_or(width);
        let network = Self { address, bits };
        (bits <= width && number(address) & !network.mask() == 0).then_some(network)
    }

    fn contains(self, address: IpAddr) -> bool {
        width(self.address) == width(address)
            && number(address) & self.mask() == number(self.address)
    }

    /// Ones where the network's bits are.
    fn mask(self) -> u128 {
        let ones = u128::MAX >> (u128::BITS - width(self.address));
        let host = width(self.address) - self.bits;
        ones & ones.checked_shl(host).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => u32::BITS,
        IpAddr::V6(_) => u128::BITS,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The text is no list of addresses and networks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a list of addresses and networks such as 192.0.2.0/24,2001:db8::/32")]
#[expect(clippy::exhaustive_structs, reason = "it says all there is to say")]
pub struct SourceListError;

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(address: &str, list: &str) -> bool {
        let list: SourceList = list.parse().unwrap();
        list.contains(address.parse().unwrap())
    }

    #[test]
    fn networks_have_exactly_their_addresses() {
        for (address, list) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1", "10.0.0.0/8,192.0.2.0/31"),
            ("::ffff:192.0.2.1", "192.0.2.0/24"),
            ("2001:db8::7", "2001:db8::/32"),
            ("203.0.113.9", "0.0.0.0/0"),
            ("2001:db8::7", "::/0"),
        ] {
            assert!(is_in(address, list), "{address} in {list}");
        }
        for (address, list) in [
            ("192.0.2.2", "192.0.2.1"),
            ("192.0.2.2", "192.0.2.0/31"),
            ("2001:db9::7", "2001:db8::/32"),
            ("2001:db8::7", "0.0.0.0/0"),
            ("192.0.2.2", "::/0"),
        ] {
            assert!(!is_in(address, list), "{address} in {list}");
        }
    }

    #[test]
    fn what_is_no_list_of_networks_is_refused() {
        for text in [
            "",
            ",",
            "192.0.2.1,",
            "192.0.2.1/24",
            "192.0.2.0/33",
            "192.0.2.0/+24",
            "192.0.2.0/",
            "::/129",
            "example.org",
            "!192.0.2.1",
            "192.0.2.*",
            "192.0.2.0/24 ",
        ] {
            assert!(text.parse::<SourceList>().is_err(), "{text:?}");
        }
    }
}
