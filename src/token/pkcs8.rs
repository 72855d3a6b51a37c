//! PKCS#8 private keys (RFC 5208) in PEM (RFC 7468): reading one, naming its kind, writing one.
//!
//! Only the envelope is understood here, so that a file of the wrong sort is refused with the command that converts it.
//! Whether the key inside is sound is for the cryptographic library to say, in [`super::key`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::key::Fault;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";
const LABEL: &str = "PRIVATE KEY";

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// What kind of key a PKCS#8 document says that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An elliptic curve key on P-256.
    P256,
    /// Ed25519.
    Ed25519,
    /// RSA without restriction to PSS.
    Rsa,
}

/// The DER content of a PEM file that holds one unencrypted PKCS#8 key and nothing else.
pub(super) fn from_pem(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let text = std::str::from_utf8(file).map_err(|_| Fault::NotPem)?;
    let (_, rest) = text.split_once(BEGIN).ok_or(Fault::NotPem)?;
    let (label, rest) = rest.split_once(DASHES).ok_or(Fault::NotPem)?;
    match label {
        LABEL => {}
        "RSA PRIVATE KEY" => return Err(Fault::Pkcs1),
        "EC PRIVATE KEY" | "EC PARAMETERS" => return Err(Fault::Sec1),
        "ENCRYPTED PRIVATE KEY" => return Err(Fault::Encrypted),
        "OPENSSH PRIVATE KEY" => return Err(Fault::OpenSsh),
        "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE" => return Err(Fault::Public),
        _ => return Err(Fault::NotPem),
    }
    let (body, behind) = rest.split_once("-----END PRIVATE KEY-----").ok_or(Fault::NotPem)?;
    if behind.contains(BEGIN) {
        return Err(Fault::SeveralKeys);
    }
    let body = Zeroizing::new(body.bytes().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<u8>>());
    STANDARD.decode(body.as_slice()).map(Zeroizing::new).map_err(|_| Fault::NotPem)
}

/// The PEM text of a PKCS#8 document, in lines of 64 characters (RFC 7468, section 2).
pub(super) fn to_pem(der: &[u8]) -> Zeroizing<Vec<u8>> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(Vec::with_capacity(body.len() + body.len() / 64 + 64));
    pem.extend_from_slice(b"-----BEGIN PRIVATE KEY-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END PRIVATE KEY-----\n");
    pem
}

/// The kind of key in a PKCS#8 document, and the octets of the key itself (for RSA: an RSAPrivateKey of RFC 8017).
pub(super) fn open(der: &[u8]) -> Result<(Kind, &[u8]), Fault> {
    let (kind, parameters, key) = split(der).ok_or(Fault::NotPkcs8)?;
    match kind {
        // id-ecPublicKey (RFC 5480, section 2.1.1); its parameter names the curve, here secp256r1.
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01] => {
            if parameters == [OBJECT_IDENTIFIER, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07] {
                Ok((Kind::P256, key))
            } else {
                Err(Fault::Curve)
            }
        }
        // id-Ed25519 (RFC 8410, section 3).
        [0x2b, 0x65, 0x70] => Ok((Kind::Ed25519, key)),
        // rsaEncryption (RFC 8017, appendix A.1).
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01] => Ok((Kind::Rsa, key)),
        _ => Err(Fault::Kind),
    }
}

/// Modulus and exponent at the front of an RSAPublicKey, or behind the version of an RSAPrivateKey (RFC 8017, appendix
/// A.1), without leading zeros.
pub(super) fn rsa_integers(der: &[u8], private: bool) -> Option<(&[u8], &[u8])> {
    let mut body = take(&mut &*der, SEQUENCE)?;
    if private {
        take(&mut body, INTEGER)?;
    }
    Some((positive(take(&mut body, INTEGER)?), positive(take(&mut body, INTEGER)?)))
}

/// Algorithm, its parameters with their tag, and the key octets of a PrivateKeyInfo (RFC 5208, section 5).
fn split(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut rest = der;
    let mut body = take(&mut rest, SEQUENCE)?;
    if !rest.is_empty() {
        return None;
    }
    take(&mut body, INTEGER)?;
    let mut identifier = take(&mut body, SEQUENCE)?;
    let algorithm = take(&mut identifier, OBJECT_IDENTIFIER)?;
    Some((algorithm, identifier, take(&mut body, OCTET_STRING)?))
}

/// Takes one DER value of this tag from the front of `input` (X.690, section 8.1).
fn take<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&found, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |sum, &b| sum << 8 | usize::from(b)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(value)
}

fn positive(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|&&b| b == 0).count();
    integer.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str) -> String {
        format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
    }

    #[test]
    fn a_file_of_the_wrong_sort_is_refused_by_name() {
        for (file, fault) in [
            (pem("RSA PRIVATE KEY"), Fault::Pkcs1),
            (pem("EC PRIVATE KEY"), Fault::Sec1),
            (pem("EC PARAMETERS") + &pem("EC PRIVATE KEY"), Fault::Sec1),
            (pem("ENCRYPTED PRIVATE KEY"), Fault::Encrypted),
            (pem("OPENSSH PRIVATE KEY"), Fault::OpenSsh),
            (pem("PUBLIC KEY"), Fault::Public),
            (pem("CERTIFICATE"), Fault::Public),
            (pem("PRIVATE KEY") + &pem("PRIVATE KEY"), Fault::SeveralKeys),
            (pem("PRIVATE KEY") + &pem("CERTIFICATE"), Fault::SeveralKeys),
            ("-----BEGIN PRIVATE KEY-----\nA*==".into(), Fault::NotPem),
            ("just a text".into(), Fault::NotPem),
            (String::new(), Fault::NotPem),
        ] {
            assert_eq!(from_pem(file.as_bytes()).unwrap_err(), fault, "{file}");
        }
        assert_eq!(from_pem(b"\x30\x82\xff").unwrap_err(), Fault::NotPem);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let der: Vec<u8> = (0..200).collect();
        assert_eq!(*from_pem(&to_pem(&der)).unwrap(), der);
    }

    #[test]
    fn torn_der_is_not_a_key() {
        let good = [0x30, 0x0b, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x00];
        for n in 0..good.len() {
            assert!(open(&good[..n]).is_err(), "{n}");
        }
        for (n, byte) in [(0, 0x31), (1, 0x84), (1, 0xff), (7, 0x80)] {
            let mut bad = good;
            bad[n] = byte;
            assert_eq!(open(&bad).unwrap_err(), Fault::NotPkcs8);
        }
    }
}
