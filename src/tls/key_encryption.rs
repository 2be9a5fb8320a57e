//! What is encrypted with a password: private keys (PKCS#8) and what is in PKCS#12 files. The
//! schemes of today (PBES2, RFC 8018) and those that Windows and OpenSSL 1 wrote (RFC 7292).

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{self, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{self, Context};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use des::TdesEde3;
use des::cipher::{Array, BlockCipherDecrypt, KeyInit as _, typenum::U8};
use rc2::Rc2;

use crate::limits;
use crate::tls::der::{Malformed, Reader};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed(Malformed),
    WrongPassword,
    /// What it is encrypted with.
    Unsupported(&'static str),
    TooManyRounds(u32),
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Refused {
        Refused::Malformed(malformed)
    }
}

const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 12];
const SHA1_TRIPLE_DES: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1, 3];
const SHA1_RC2_128: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1, 5];
const SHA1_RC2_40: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1, 6];

/// An EncryptedPrivateKeyInfo (RFC 5958) into the PrivateKeyInfo that it hides.
pub fn decrypt_key(der: &[u8], password: &str) -> Result<Vec<u8>, Refused> {
    let mut all = Reader::new(der);
    let mut fields = all.sequence()?;
    all.end()?;
    let algorithm = fields.sequence()?;
    let key = decrypt(algorithm, fields.octet_string()?, password)?;
    // A wrong password leaves rubbish, which may end as if it were padded.
    match Reader::new(&key).sequence() {
        Ok(_) => Ok(key),
        Err(_) => Err(Refused::WrongPassword),
    }
}

/// `algorithm`: what is in the AlgorithmIdentifier.
pub fn decrypt(mut algorithm: Reader<'_>, data: &[u8], password: &str) -> Result<Vec<u8>, Refused> {
    let scheme = algorithm.oid()?;
    if scheme == PBES2 {
        return decrypt_pbes2(algorithm.sequence()?, data, password);
    }
    let cipher = match scheme {
        SHA1_TRIPLE_DES => Old::TripleDes,
        SHA1_RC2_128 => Old::Rc2 { bytes: 16 },
        SHA1_RC2_40 => Old::Rc2 { bytes: 5 },
        _ => return Err(Refused::Unsupported("with an algorithm that is not supported")),
    };
    let mut parameters = algorithm.sequence()?;
    let salt = parameters.octet_string()?;
    let rounds = rounds(parameters.small()?)?;
    let mut last = Err(Refused::WrongPassword);
    for password in pkcs12_passwords(password) {
        let derive = |use_for, length| {
            let hash = &digest::SHA1_FOR_LEGACY_USE_ONLY;
            pkcs12_derive(hash, use_for, &password, salt, rounds, length)
        };
        let key = derive(Use::Encryption, cipher.key_length());
        let initial = derive(Use::Initial, 8);
        last = cipher.decrypt(&key, &initial, data);
        if last.is_ok() {
            break;
        }
    }
    last
}

/// A hostile file must not keep us busy for minutes.
pub fn rounds(written: u32) -> Result<NonZeroU32, Refused> {
    let rounds = NonZeroU32::new(written).ok_or(Malformed("a key derived in no rounds"))?;
    if written > limits::KEY_DERIVATION_ROUNDS_MAX {
        return Err(Refused::TooManyRounds(written));
    }
    Ok(rounds)
}

// --- PBES2 -----------------------------------------------------------------------------------

enum Cipher {
    Aes(&'static cipher::Algorithm, usize),
    TripleDes,
}

fn decrypt_pbes2(
    mut parameters: Reader<'_>,
    data: &[u8],
    password: &str,
) -> Result<Vec<u8>, Refused> {
    let mut derivation = parameters.sequence()?;
    let mut encryption = parameters.sequence()?;
    if derivation.oid()? != PBKDF2 {
        return Err(Refused::Unsupported("with a key that is not derived by PBKDF2"));
    }
    let cipher = cipher_of(encryption.oid()?)?;
    let initial = encryption.octet_string()?;
    let length = match cipher {
        Cipher::Aes(_, length) => length,
        Cipher::TripleDes => 24,
    };
    let mut key = vec![0; length];
    derive_pbkdf2(derivation.sequence()?, password, &mut key)?;
    match cipher {
        Cipher::Aes(algorithm, _) => decrypt_aes(algorithm, &key, initial, data),
        Cipher::TripleDes => Old::TripleDes.decrypt(&key, initial, data),
    }
}

fn cipher_of(kind: &[u8]) -> Result<Cipher, Refused> {
    const AES: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1];
    const TRIPLE_DES: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 7];
    match (kind.strip_prefix(AES), kind) {
        (Some([2]), _) => Ok(Cipher::Aes(&cipher::AES_128, 16)),
        (Some([22]), _) => Ok(Cipher::Aes(&cipher::AES_192, 24)),
        (Some([42]), _) => Ok(Cipher::Aes(&cipher::AES_256, 32)),
        (_, TRIPLE_DES) => Ok(Cipher::TripleDes),
        _ => Err(Refused::Unsupported("with a cipher that is neither AES-CBC nor 3DES-CBC")),
    }
}

/// RFC 8018 A.2.
fn derive_pbkdf2(
    mut parameters: Reader<'_>,
    password: &str,
    key: &mut [u8],
) -> Result<(), Refused> {
    const HMAC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2];
    let salt = parameters.octet_string()?;
    let rounds = rounds(parameters.small()?)?;
    if parameters.peek() == Some(super::der::tag::INTEGER)
        && parameters.small()? as usize != key.len()
    {
        return Err(Malformed("a key length that is not the cipher's").into());
    }
    let algorithm = if parameters.is_empty() {
        pbkdf2::PBKDF2_HMAC_SHA1
    } else {
        match parameters.sequence()?.oid()?.strip_prefix(HMAC) {
            Some([7]) => pbkdf2::PBKDF2_HMAC_SHA1,
            Some([9]) => pbkdf2::PBKDF2_HMAC_SHA256,
            Some([10]) => pbkdf2::PBKDF2_HMAC_SHA384,
            Some([11]) => pbkdf2::PBKDF2_HMAC_SHA512,
            _ => return Err(Refused::Unsupported("with a key derived by a hash that is not SHA")),
        }
    };
    pbkdf2::derive(algorithm, rounds, salt, password.as_bytes(), key);
    Ok(())
}

fn decrypt_aes(
    algorithm: &'static cipher::Algorithm,
    key: &[u8],
    initial: &[u8],
    data: &[u8],
) -> Result<Vec<u8>, Refused> {
    let initial: [u8; 16] =
        initial.try_into().map_err(|_| Malformed("an initial vector that is not of 16 bytes"))?;
    if data.is_empty() || !data.len().is_multiple_of(16) {
        return Err(Malformed("encrypted data that is not of whole blocks").into());
    }
    let mut data = data.to_vec();
    let key = UnboundCipherKey::new(algorithm, key).and_then(PaddedBlockDecryptingKey::cbc_pkcs7);
    let key = key.map_err(|_| Malformed("a key of the wrong length"))?;
    let context = DecryptionContext::Iv128(FixedLength::from(initial));
    let length = key.decrypt(&mut data, context).map_err(|_| Refused::WrongPassword)?.len();
    data.truncate(length);
    Ok(data)
}

// --- the schemes of old ----------------------------------------------------------------------

enum Old {
    TripleDes,
    Rc2 { bytes: usize },
}

impl Old {
    fn key_length(&self) -> usize {
        match self {
            Old::TripleDes => 24,
            Old::Rc2 { bytes } => *bytes,
        }
    }

    fn decrypt(&self, key: &[u8], initial: &[u8], data: &[u8]) -> Result<Vec<u8>, Refused> {
        match self {
            Old::TripleDes => {
                let cipher = TdesEde3::new_from_slice(key)
                    .map_err(|_| Malformed("a key of the wrong length"))?;
                decrypt_blocks(&cipher, initial, data)
            }
            Old::Rc2 { bytes } => {
                let cipher = Rc2::new_with_eff_key_len(key, bytes * 8);
                decrypt_blocks(&cipher, initial, data)
            }
        }
    }
}

/// CBC with the padding of PKCS#7.
fn decrypt_blocks(
    cipher: &impl BlockCipherDecrypt<BlockSize = U8>,
    initial: &[u8],
    data: &[u8],
) -> Result<Vec<u8>, Refused> {
    let mut before: [u8; 8] =
        initial.try_into().map_err(|_| Malformed("an initial vector that is not of 8 bytes"))?;
    let (blocks, rest) = data.as_chunks::<8>();
    if blocks.is_empty() || !rest.is_empty() {
        return Err(Malformed("encrypted data that is not of whole blocks").into());
    }
    let mut plain = Vec::with_capacity(data.len());
    for block in blocks {
        let mut opened = Array::from(*block);
        cipher.decrypt_block(&mut opened);
        plain.extend(opened.iter().zip(before).map(|(byte, mask)| byte ^ mask));
        before = *block;
    }
    let padding = usize::from(plain.last().copied().unwrap_or_default());
    let kept = plain.len() - padding.min(plain.len());
    let good = (1..=8).contains(&padding)
        && plain[kept..].iter().all(|byte| usize::from(*byte) == padding);
    if !good {
        return Err(Refused::WrongPassword);
    }
    plain.truncate(kept);
    Ok(plain)
}

// --- keys as PKCS#12 derives them --------------------------------------------------------------

#[derive(Clone, Copy)]
pub enum Use {
    Encryption = 1,
    Initial = 2,
    Authentication = 3,
}

/// RFC 7292 B.1: UTF-16 and a zero. Of an empty password some programs leave the zero away.
pub fn pkcs12_passwords(password: &str) -> Vec<Vec<u8>> {
    let units = password.encode_utf16().chain([0]);
    let written = units.flat_map(u16::to_be_bytes).collect();
    if password.is_empty() { vec![written, Vec::new()] } else { vec![written] }
}

/// RFC 7292 B.2.
pub fn pkcs12_derive(
    hash: &'static digest::Algorithm,
    use_for: Use,
    password: &[u8],
    salt: &[u8],
    rounds: NonZeroU32,
    length: usize,
) -> Vec<u8> {
    let block = hash.block_len();
    let diversifier = vec![use_for as u8; block];
    let filled = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().copied().cycle().take(bytes.len().next_multiple_of(block)).collect()
    };
    let mut input = filled(salt);
    input.extend(filled(password));
    let mut key = Vec::with_capacity(length + hash.output_len());
    while key.len() < length {
        let mut context = Context::new(hash);
        context.update(&diversifier);
        context.update(&input);
        let mut made = context.finish();
        for _ in 1..rounds.get() {
            made = digest::digest(hash, made.as_ref());
        }
        key.extend_from_slice(made.as_ref());
        let addend: Vec<u8> = made.as_ref().iter().copied().cycle().take(block).collect();
        input.chunks_exact_mut(block).for_each(|part| add_and_one(part, &addend));
    }
    key.truncate(length);
    key
}

/// `number += addend + 1`, most significant byte first; what overflows is lost.
fn add_and_one(number: &mut [u8], addend: &[u8]) {
    let mut carry = 1;
    for (digit, other) in number.iter_mut().zip(addend).rev() {
        let sum = u16::from(*digit) + u16::from(*other) + carry;
        *digit = sum as u8;
        carry = sum >> 8;
    }
}
