//! AuthPAK: a password-authenticated key exchange (SPAKE2-EE) on the curve of Ed448-Goldilocks, as dp9ik uses it.
//!
//! The curve is the one of RFC 8032, with coordinates in big-endian order and encodings and maps of its own, so that no
//! implementation of Ed448 or decaf448 serves. Nothing here branches on a secret.

use crypto_bigint::modular::ConstMontyForm;
use crypto_bigint::{Choice, CtEq, CtGt, CtSelect, U448, const_monty_params};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

const_monty_params!(
    Goldilocks,
    U448,
    "fffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "The prime 2^448 - 2^224 - 1."
);

/// An element of the field.
type Element = ConstMontyForm<Goldilocks, { U448::LIMBS }>;

/// A point in extended coordinates: x = X/Z, y = Y/Z, xy = T/Z.
#[derive(Clone, Copy)]
struct Point {
    x: Element,
    y: Element,
    z: Element,
    t: Element,
}

/// The two points that hide what a side sends, made of its user and its password.
#[derive(Clone)]
pub(crate) struct PakHash {
    client: [Element; 4],
    server: [Element; 4],
}

/// Which of the two sides of an exchange one plays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PakSide {
    /// What a service and its caller are towards an authentication server.
    Client,
    /// What the authentication server is, twice.
    Server,
}

/// One side of an exchange that has sent its part.
pub(crate) struct Pak {
    side: PakSide,
    secret: U448,
    sent: [u8; PAK],
}

/// What both sides share where they know the same password.
pub(crate) type PakKey = Zeroizing<[u8; 32]>;

impl PakHash {
    /// The points of a user with the AES key of its password.
    pub(crate) fn new(key: &[u8; 16], user: &str) -> Self {
        let mut bytes = Zeroizing::new([0; 2 * PAK]);
        derive(
            &Sha256::digest(user.as_bytes()),
            key,
            b"Plan 9 AuthPAK hash",
            &mut *bytes,
        );
        let (client, server) = bytes.split_at(PAK);
        Self {
            client: Point::of_hash(client).coordinates(),
            server: Point::of_hash(server).coordinates(),
        }
    }

    fn hides(&self, side: PakSide) -> Point {
        Point::from_coordinates(match side {
            PakSide::Client => &self.client,
            PakSide::Server => &self.server,
        })
    }
}

impl Pak {
    /// Makes our part of random bytes.
    pub(crate) fn new(hash: &PakHash, side: PakSide, random: &[u8; 64]) -> Self {
        let secret = scalar(random);
        let sent = Point::generator().multiply(&secret).add(&hash.hides(side));
        Self {
            side,
            secret,
            sent: sent.encode(),
        }
    }

    /// What goes to the other side.
    pub(crate) fn sent(&self) -> &[u8; PAK] {
        &self.sent
    }

    /// The key that is shared with whoever sent `received`; `None` where that is no point. Whether the other side knew
    /// the password shows only when the key is used.
    pub(crate) fn finish(self, hash: &PakHash, received: &[u8; PAK]) -> Option<PakKey> {
        let other = match self.side {
            PakSide::Client => PakSide::Server,
            PakSide::Server => PakSide::Client,
        };
        let point = Point::decode(received)?.add(&hash.hides(other).negate());
        let shared = Zeroizing::new(point.multiply(&self.secret).encode());
        let (client, server) = match self.side {
            PakSide::Client => (&self.sent, received),
            PakSide::Server => (received, &self.sent),
        };
        let salt = Sha256::new().chain_update(client).chain_update(server);
        let mut key = Zeroizing::new([0; 32]);
        derive(&salt.finalize(), &*shared, b"Plan 9 AuthPAK key", &mut *key);
        Some(key)
    }
}

impl Drop for PakHash {
    fn drop(&mut self) {
        self.client.zeroize();
        self.server.zeroize();
    }
}

impl Drop for Pak {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Point {
    fn generator() -> Self {
        let x = Element::new(&U448::from_be_hex(GENERATOR_X));
        let y = small(19);
        Self {
            x,
            y,
            z: Element::ONE,
            t: x * y,
        }
    }

    fn coordinates(self) -> [Element; 4] {
        [self.x, self.y, self.z, self.t]
    }

    fn from_coordinates([x, y, z, t]: &[Element; 4]) -> Self {
        Self {
            x: *x,
            y: *y,
            z: *z,
            t: *t,
        }
    }

    /// Maps bytes to a point (Elligator 2, as in Hamburg's Decaf).
    fn of_hash(bytes: &[u8]) -> Self {
        let n = small(NONSQUARE);
        let d = d();
        let one = Element::ONE;
        let r0 = Element::new(&U448::from_be_slice(bytes));
        let r = n * r0 * r0;
        let denominator = (d * r + one - d) * (d * r - r - d);
        let a2d = one - d - d;
        let numerator = (r + one) * a2d;
        let nd = numerator * denominator;
        let root = inverse_root(&nd);
        let square = (root * root * nd).ct_eq(&one).or(nd.ct_eq(&Element::ZERO));
        let other = n * r0 * inverse_root(&(n * nd));
        let e = other.ct_select(&root, square);
        let c = (-one).ct_select(&one, square);
        let s = c * numerator * e;
        let t = -(c * numerator * (r - one) * (a2d * e) * (a2d * e)) - one;
        let (plus, minus) = (one + s * s, one - s * s);
        Self {
            x: (s + s) * t,
            y: minus * plus,
            z: plus * t,
            t: (s + s) * minus,
        }
    }

    /// The sum of any two points: the curve's addition is complete.
    fn add(&self, other: &Self) -> Self {
        let a = self.x * other.x;
        let b = self.y * other.y;
        let c = d() * self.t * other.t;
        let z = self.z * other.z;
        let e = (self.x + self.y) * (other.x + other.y) - a - b;
        let (f, g, h) = (z - c, z + c, b - a);
        Self {
            x: e * f,
            y: g * h,
            z: f * g,
            t: e * h,
        }
    }

    fn negate(&self) -> Self {
        Self {
            x: -self.x,
            y: self.y,
            z: self.z,
            t: -self.t,
        }
    }

    fn multiply(&self, scalar: &U448) -> Self {
        let mut sum = Self {
            x: Element::ZERO,
            y: Element::ONE,
            z: Element::ONE,
            t: Element::ZERO,
        };
        for bit in (0..U448::BITS).rev() {
            let double = sum.add(&sum);
            let more = double.add(self);
            let choice = scalar.bit(bit);
            sum = Self {
                x: double.x.ct_select(&more.x, choice),
                y: double.y.ct_select(&more.y, choice),
                z: double.z.ct_select(&more.z, choice),
                t: double.t.ct_select(&more.t, choice),
            };
        }
        sum
    }

    fn encode(&self) -> [u8; PAK] {
        let ad = Element::ONE - d();
        let r = inverse_root(&(ad * (self.z + self.y) * (self.z - self.y)));
        let u = ad * r;
        let uz = u * self.z;
        let r = negate_if(&r, is_negative(&-(uz + uz)));
        let s = u * (r * (self.z * self.x - d() * self.y * self.t) + self.y);
        let s = negate_if(&s, is_negative(&s)).retrieve();
        let mut out = [0; PAK];
        out.copy_from_slice(s.to_be_bytes().as_ref());
        out
    }

    fn decode(bytes: &[u8; PAK]) -> Option<Self> {
        let s = U448::from_be_slice(bytes);
        if s.ct_gt(&U448::from_be_hex(HALF)).to_bool() {
            return None;
        }
        let s = Element::new(&s);
        let ss = s * s;
        let z = Element::ONE + ss;
        let u = z * z - small(4) * d() * ss;
        let v = u * ss;
        let zero = v.ct_eq(&Element::ZERO);
        let root = inverse_root(&v);
        if !(root * root * v).ct_eq(&Element::ONE).or(zero).to_bool() {
            return None;
        }
        let root = negate_if(&root, is_negative(&(u * root)));
        let w = root * s * (small(2) - z);
        let w = w.ct_select(&(w + Element::ONE), s.ct_eq(&Element::ZERO));
        let x = s + s;
        Some(Self {
            x,
            y: w * z,
            z,
            t: w * x,
        })
    }
}

/// One over the square root of a square, and nothing of use for others. The root is the one that is itself a square.
fn inverse_root(value: &Element) -> Element {
    value.pow(&U448::from_be_hex(ROOT_EXPONENT))
}

fn is_negative(value: &Element) -> Choice {
    value.retrieve().ct_gt(&U448::from_be_hex(HALF))
}

fn negate_if(value: &Element, choice: Choice) -> Element {
    value.ct_select(&-*value, choice)
}

fn small(value: u32) -> Element {
    Element::new(&U448::from_u32(value))
}

/// The curve's d, which is negative.
fn d() -> Element {
    -small(39081)
}

/// Random bytes as a number below the prime.
fn scalar(random: &[u8; 64]) -> U448 {
    let (high, low) = random.split_at(64 - PAK);
    // 2^448 is 2^224 + 1 in this field.
    let carry = Element::new(&U448::ONE.shl_vartime(224)) + Element::ONE;
    let mut wide = [0; PAK];
    wide[PAK - high.len()..].copy_from_slice(high);
    let sum =
        Element::new(&U448::from_be_slice(&wide)) * carry + Element::new(&U448::from_be_slice(low));
    wide.zeroize();
    sum.retrieve()
}

/// HKDF with SHA-256.
pub(crate) fn derive(salt: &[u8], key: &[u8], info: &[u8], out: &mut [u8]) {
    Hkdf::<Sha256>::new(Some(salt), key)
        .expand(info, out)
        .expect("at most 256 of the 8160 bytes that HKDF can make are asked for");
}

/// The size of an encoded point.
pub(crate) const PAK: usize = 56;

/// The smallest number that has no square root.
const NONSQUARE: u32 = 7;

/// (p - 1) / 2: greater numbers are negative.
const HALF: &str = "7fffffffffffffffffffffffffffffffffffffffffffffffffffffff7fffffffffffffffffffffffffffffffffffffffffffffffffffffff";

/// (p - 3) / 4.
const ROOT_EXPONENT: &str = "3fffffffffffffffffffffffffffffffffffffffffffffffffffffffbfffffffffffffffffffffffffffffffffffffffffffffffffffffff";

const GENERATOR_X: &str = "297ea0ea2692ff1b4faff46098453a6a26adf733245f065c3c59d0709cecfa96147eaaf3932d94c63d96c170033f4ba0c7f0de840aed939f";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::conterm::keys::Keys;
    use crate::backend::conterm::vectors::{answer, hex, known};

    #[test]
    fn passwords_map_to_the_known_points() {
        let keys = Keys::new("glenda", b"glenda123");
        let hash = PakHash::new(&keys.aes, "glenda");
        for (name, side) in [("PM", PakSide::Client), ("PN", PakSide::Server)] {
            let point = hash.hides(side);
            let coordinates = [
                ("X", point.x),
                ("Y", point.y),
                ("Z", point.z),
                ("T", point.t),
            ];
            for (axis, value) in coordinates {
                let expected = known(&format!("{name} {axis}"));
                assert_eq!(
                    value.retrieve().to_be_bytes().as_ref(),
                    expected,
                    "{name} {axis}"
                );
            }
            assert_eq!(point.encode().to_vec(), known(&format!("{name} decaf")));
        }
    }

    #[test]
    fn both_sides_agree_on_the_known_key() {
        let keys = Keys::new("glenda", b"glenda123");
        let hash = PakHash::new(&keys.aes, "glenda");
        let wide = |value: u64| {
            let mut random = [0; 64];
            random[56..].copy_from_slice(&value.to_be_bytes());
            random
        };
        let client = Pak::new(&hash, PakSide::Client, &wide(1_234_567_890_123_456_789));
        let server = Pak::new(&hash, PakSide::Server, &wide(9_876_543_210_987_654_321));
        let ya = *client.sent();
        let yb = *server.sent();
        assert_eq!(ya.to_vec(), known("xa=1234567890123456789 Ya"));
        assert_eq!(yb.to_vec(), known("xb=9876543210987654321 Yb"));
        let key = client.finish(&hash, &yb).unwrap();
        assert_eq!(key.to_vec(), known("pakkey"));
        assert_eq!(server.finish(&hash, &ya).unwrap(), key);
    }

    #[test]
    fn the_smallest_number_that_is_no_square_is_the_known_one() {
        let known = answer("nonsquare");
        assert_eq!(known, NONSQUARE.to_string());
        // By Euler's criterion.
        let is_square = |value: &u32| small(*value).pow(&U448::from_be_hex(HALF)) == small(1);
        assert_eq!((1..).find(|value| !is_square(value)), Some(NONSQUARE));
    }

    #[test]
    fn what_is_no_point_is_refused() {
        assert!(Point::decode(&[0xff; PAK]).is_none());
        let mut encodings = 0;
        for byte in 0..64 {
            let mut bytes = [0; PAK];
            bytes[55] = byte;
            encodings += usize::from(Point::decode(&bytes).is_some());
        }
        assert!(encodings < 64, "half of the numbers are no points");
        assert_eq!(hex("00ff"), [0, 255]);
    }
}
