//! The secret that ties a pick-up request to its dial.

use std::fmt;

/// The number of one dial: whoever presents it is the peer that was told, and gets the connection. 128 random bits, good
/// for one pick-up.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub(crate) struct PickUpId([u8; 16]);

impl PickUpId {
    pub(crate) fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// Reads 32 lower-case hex digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits: &[u8; 32] = text.as_bytes().try_into().ok()?;
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair
                .iter()
                .try_fold(0, |byte, digit| Some(byte << 4 | hex(*digit)?))?;
        }
        Some(Self(id))
    }

    /// Finds the number in a path's query; the first one counts.
    pub(crate) fn from_query(query: &str) -> Option<Self> {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(PARAMETER)?.strip_prefix('='))
            .and_then(Self::parse)
    }
}

impl fmt::Display for PickUpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// It is a secret: logs do not show it.
impl fmt::Debug for PickUpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PickUpId")
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The query parameter, as Go names it.
pub(crate) const PARAMETER: &str = "revdial.dialer";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_32_lower_case_hex_digits() {
        let text = "00ff0123456789abcdef0123456789ab";
        let id = PickUpId::parse(text).unwrap();
        assert_eq!(id.to_string(), text);
        assert!(!format!("{id:?}").contains("ff"));
        for bad in [
            "",
            "00ff0123456789abcdef0123456789a",
            "00ff0123456789abcdef0123456789ab0",
            "00FF0123456789abcdef0123456789ab",
            "g0ff0123456789abcdef0123456789ab",
            "+0ff0123456789abcdef0123456789ab",
        ] {
            assert_eq!(PickUpId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn it_is_found_in_a_query() {
        let text = "00ff0123456789abcdef0123456789ab";
        let id = PickUpId::parse(text);
        for query in [
            format!("revdial.dialer={text}"),
            format!("x=1&revdial.dialer={text}"),
            format!("revdial.dialer={text}&revdial.dialer=00"),
        ] {
            assert_eq!(PickUpId::from_query(&query), id, "{query}");
        }
        for query in [
            String::new(),
            "revdial.dialer".to_owned(),
            format!("revdial.dialer={text}0"),
            format!("xrevdial.dialer={text}"),
            format!("revdial.dialer=&revdial.dialer={text}"),
        ] {
            assert_eq!(PickUpId::from_query(&query), None, "{query}");
        }
    }
}
