//! OCSP (RFC 6960): what is asked of a responder about a certificate of ours, and whether its
//! answer may be stapled. The codec alone: who asks, and when, is the control core's.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::limits;
use crate::tls::der::{self, Malformed, Reader, tag};
use crate::tls::x509::Parts;

/// Good for a handshake until `next_update`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: Status,
    pub this_update: SystemTime,
    /// `None`: newer answers are there at any time.
    pub next_update: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Good,
    Revoked { at: SystemTime },
}

/// Why an answer is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed(Malformed),
    TooLong(usize),
    /// RFC 6960 4.2.1: the responder says that it does not answer, and why.
    Declined(u32),
    /// It is about other certificates, or was signed by somebody else's responder.
    NotForOurs,
    /// The responder knows no such certificate.
    Unknown,
    UnsupportedSignature,
    WrongSignature,
    /// Neither the issuer nor somebody whom it told to answer has signed it.
    Stranger,
    FromTheFuture(SystemTime),
    Expired(SystemTime),
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Refused {
        Refused::Malformed(malformed)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Refused::Malformed(malformed) => return write!(f, "it is malformed: {malformed}"),
            Refused::TooLong(length) => {
                let most = limits::OCSP_ANSWER_BYTES_MAX;
                return write!(f, "it is {length} bytes long, at most {most} are taken");
            }
            Refused::Declined(1) => "the responder found our request malformed",
            Refused::Declined(2) => "the responder has an error of its own",
            Refused::Declined(3) => "the responder asks to come later",
            Refused::Declined(5) => "the responder wants signed requests",
            Refused::Declined(6) => "the responder does not answer us",
            Refused::Declined(code) => return write!(f, "the responder answers with code {code}"),
            Refused::NotForOurs => "it is about another certificate",
            Refused::Unknown => "the responder does not know the certificate",
            Refused::UnsupportedSignature => {
                "it is signed with something else than RSA (PKCS #1) or ECDSA (P-256, P-384) and \
                 SHA-2"
            }
            Refused::WrongSignature => "its signature is wrong",
            Refused::Stranger => {
                "neither the issuer of the certificate nor a responder of the issuer signed it"
            }
            Refused::FromTheFuture(_) => "it is from the future: look at the clock of this machine",
            Refused::Expired(_) => "it has expired: the responder gives old answers",
        };
        f.write_str(text)
    }
}

impl std::error::Error for Refused {}

/// OIDs, as they are encoded.
const SHA1: &[u8] = &[0x2b, 14, 3, 2, 26];
const BASIC_RESPONSE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 1];
const OCSP_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];

/// An OCSPRequest, to be posted as `application/ocsp-request`. Without a nonce, which responders
/// that answer from a cache do not have.
pub fn request(leaf: &[u8], issuer: &[u8]) -> Result<Vec<u8>, Malformed> {
    let asked = CertificateId::of(&Parts::read(leaf)?, &Parts::read(issuer)?)?;
    let id = asked.written();
    let single = der::write(tag::SEQUENCE, &[&id]);
    let list = der::write(tag::SEQUENCE, &[&single]);
    let body = der::write(tag::SEQUENCE, &[&list]);
    Ok(der::write(tag::SEQUENCE, &[&body]))
}

/// Whether `response` is an answer about `leaf` that holds at `now`.
pub fn read(
    response: &[u8],
    leaf: &[u8],
    issuer: &[u8],
    now: SystemTime,
) -> Result<Answer, Refused> {
    if response.len() > limits::OCSP_ANSWER_BYTES_MAX {
        return Err(Refused::TooLong(response.len()));
    }
    let issuer = Parts::read(issuer)?;
    let asked = CertificateId::of(&Parts::read(leaf)?, &issuer)?;
    let basic = Basic::read(basic_response(response)?)?;
    basic.verify(&issuer, now)?;
    let answer = single_of(basic.responses, &asked)?;
    if answer.this_update > now + limits::OCSP_CLOCK_SKEW {
        return Err(Refused::FromTheFuture(answer.this_update));
    }
    match answer.next_update {
        Some(next) if next < now || next < answer.this_update => Err(Refused::Expired(next)),
        Some(_) => Ok(answer),
        None => match answer.this_update + limits::OCSP_UNDATED_KEPT {
            end if end < now => Err(Refused::Expired(end)),
            _ => Ok(answer),
        },
    }
}

/// RFC 6960 4.1.1: a certificate as its issuer numbers it.
struct CertificateId<'a> {
    issuer_name: [u8; 20],
    issuer_key: [u8; 20],
    serial: &'a [u8],
}

impl<'a> CertificateId<'a> {
    fn of(leaf: &Parts<'a>, issuer: &Parts<'_>) -> Result<CertificateId<'a>, Malformed> {
        if leaf.issuer != issuer.subject {
            return Err(Malformed("the certificate is of another issuer"));
        }
        let (_, key) = issuer.key()?;
        let serial = leaf.serial;
        Ok(CertificateId { issuer_name: sha1(leaf.issuer), issuer_key: sha1(key), serial })
    }

    fn written(&self) -> Vec<u8> {
        let null = der::write(tag::NULL, &[]);
        let hash = der::write(tag::SEQUENCE, &[&der::write(tag::OID, &[SHA1]), &null]);
        let name = der::write(tag::OCTET_STRING, &[&self.issuer_name]);
        let key = der::write(tag::OCTET_STRING, &[&self.issuer_key]);
        let serial = der::write(tag::INTEGER, &[self.serial]);
        der::write(tag::SEQUENCE, &[&hash, &name, &key, &serial])
    }

    fn is(&self, mut fields: Reader<'_>) -> Result<bool, Malformed> {
        let hash = fields.sequence()?.oid()?;
        let (name, key) = (fields.octet_string()?, fields.octet_string()?);
        let serial = fields.take(tag::INTEGER)?;
        Ok(hash == SHA1
            && name == self.issuer_name
            && key == self.issuer_key
            && serial == self.serial)
    }
}

fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut made = [0; 20];
    made.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    made
}

/// What is inside an OCSPResponse that is an answer.
fn basic_response(response: &[u8]) -> Result<&[u8], Refused> {
    let mut all = Reader::new(response);
    let mut fields = all.sequence()?;
    all.end()?;
    match fields.take(tag::ENUMERATED)? {
        [0] => {}
        [code] => return Err(Refused::Declined(u32::from(*code))),
        _ => return Err(Malformed("a status that is none").into()),
    }
    let mut bytes = Reader::new(fields.take(tag::context(0))?).sequence()?;
    if bytes.oid()? != BASIC_RESPONSE {
        return Err(Malformed("an answer of an unknown kind").into());
    }
    Ok(bytes.octet_string()?)
}

/// RFC 6960 4.2.1: BasicOCSPResponse.
struct Basic<'a> {
    signed: &'a [u8],
    responder: Responder<'a>,
    /// A row of SingleResponse.
    responses: Reader<'a>,
    algorithm: Reader<'a>,
    signature: &'a [u8],
    /// Those that the responder adds, one after the other.
    certificates: Reader<'a>,
}

/// Who says that it signed.
enum Responder<'a> {
    Name(&'a [u8]),
    KeyDigest(&'a [u8]),
}

impl<'a> Basic<'a> {
    fn read(bytes: &'a [u8]) -> Result<Basic<'a>, Malformed> {
        let mut fields = Reader::new(bytes).sequence()?;
        let data = fields.whole(tag::SEQUENCE)?;
        let algorithm = fields.sequence()?;
        let signature = fields.bit_string()?;
        let certificates = match fields.optional(tag::context(0))? {
            Some(wrapped) => Reader::new(wrapped).sequence()?,
            None => Reader::new(&[]),
        };
        fields.end()?;
        let mut body = Reader::new(data.content);
        body.optional(tag::context(0))?; // the version
        let named = body.element()?;
        let responder = if named.tag == tag::context(1) {
            Responder::Name(named.content)
        } else if named.tag == tag::context(2) {
            Responder::KeyDigest(Reader::new(named.content).octet_string()?)
        } else {
            return Err(Malformed("a responder without a name"));
        };
        body.time()?; // when it was made: what counts is in each answer
        let responses = body.sequence()?;
        let signed = data.whole;
        Ok(Basic { signed, responder, responses, algorithm, signature, certificates })
    }

    /// RFC 6960 4.2.2.2: by the issuer, or by somebody whom the issuer itself gave the right to.
    fn verify(&self, issuer: &Parts<'_>, now: SystemTime) -> Result<(), Refused> {
        if self.responder.is(issuer)? {
            return verify(issuer, self.algorithm, self.signed, self.signature);
        }
        let mut certificates = self.certificates;
        while !certificates.is_empty() {
            let delegate = Parts::read(certificates.whole(tag::SEQUENCE)?.whole)?;
            if !self.responder.is(&delegate)? {
                continue;
            }
            if delegate.issuer != issuer.subject
                || delegate.has_purpose(OCSP_SIGNING)? != Some(true)
                || delegate.not_before > now + limits::OCSP_CLOCK_SKEW
                || delegate.not_after < now
            {
                return Err(Refused::Stranger);
            }
            let algorithm = Reader::new(delegate.algorithm);
            verify(issuer, algorithm, delegate.signed, delegate.signature)?;
            return verify(&delegate, self.algorithm, self.signed, self.signature);
        }
        Err(Refused::Stranger)
    }
}

impl Responder<'_> {
    fn is(&self, certificate: &Parts<'_>) -> Result<bool, Malformed> {
        Ok(match self {
            Responder::Name(name) => *name == certificate.subject,
            Responder::KeyDigest(digest) => *digest == sha1(certificate.key()?.1),
        })
    }
}

/// The newest answer about the certificate that was asked for.
fn single_of(mut responses: Reader<'_>, asked: &CertificateId<'_>) -> Result<Answer, Refused> {
    const GOOD: u8 = tag::context_plain(0);
    const REVOKED: u8 = tag::context(1);
    let mut found: Option<(Option<Status>, SystemTime, Option<SystemTime>)> = None;
    while !responses.is_empty() {
        let mut single = responses.sequence()?;
        let ours = asked.is(single.sequence()?)?;
        let status = single.element()?;
        let status = match status.tag {
            GOOD => Some(Status::Good),
            REVOKED => Some(Status::Revoked { at: Reader::new(status.content).time()? }),
            _ => None,
        };
        let this_update = single.time()?;
        let next_update = match single.optional(tag::context(0))? {
            Some(wrapped) => Some(Reader::new(wrapped).time()?),
            None => None,
        };
        if ours && found.is_none_or(|(_, before, _)| before < this_update) {
            found = Some((status, this_update, next_update));
        }
    }
    let (status, this_update, next_update) = found.ok_or(Refused::NotForOurs)?;
    let status = status.ok_or(Refused::Unknown)?;
    Ok(Answer { status, this_update, next_update })
}

fn verify(
    signer: &Parts<'_>,
    algorithm: Reader<'_>,
    signed: &[u8],
    signature: &[u8],
) -> Result<(), Refused> {
    let (key_algorithm, key) = signer.key()?;
    let algorithm = algorithm_of(algorithm, key_algorithm)?;
    let key = UnparsedPublicKey::new(algorithm, key);
    key.verify(signed, signature).map_err(|_| Refused::WrongSignature)
}

fn algorithm_of(
    mut of_signature: Reader<'_>,
    mut of_key: Reader<'_>,
) -> Result<&'static dyn VerificationAlgorithm, Refused> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
    const CURVE: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const P384: &[u8] = &[0x2b, 0x81, 4, 0, 34];
    const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3];
    let (kind, key) = (of_signature.oid()?, of_key.oid()?);
    let curve = if key == CURVE { of_key.oid()? } else { &[] };
    let rsa = kind.strip_prefix(RSA).filter(|_| key.strip_prefix(RSA) == Some(&[1]));
    let ecdsa = kind.strip_prefix(ECDSA_SHA2);
    let found: &'static dyn VerificationAlgorithm = match (rsa, ecdsa, curve) {
        (Some([11]), _, _) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (Some([12]), _, _) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (Some([13]), _, _) => &signature::RSA_PKCS1_2048_8192_SHA512,
        (_, Some([2]), P256) => &signature::ECDSA_P256_SHA256_ASN1,
        (_, Some([3]), P256) => &signature::ECDSA_P256_SHA384_ASN1,
        (_, Some([4]), P256) => &signature::ECDSA_P256_SHA512_ASN1,
        (_, Some([2]), P384) => &signature::ECDSA_P384_SHA256_ASN1,
        (_, Some([3]), P384) => &signature::ECDSA_P384_SHA384_ASN1,
        (_, Some([4]), P384) => &signature::ECDSA_P384_SHA512_ASN1,
        (_, _, _) => return Err(Refused::UnsupportedSignature),
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hexadecimal;
    use crate::tls::test_pki::Pki;

    /// `openssl ocsp` with an index of certificates: what it answers to our request.
    struct Authority {
        pki: Pki,
        leaf: Vec<u8>,
        issuer: Vec<u8>,
    }

    const VALID: &str = "V\t400101000000Z\t";
    const REVOKED: &str = "R\t400101000000Z\t260102030405Z";
    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> SystemTime {
        SystemTime::now()
    }

    impl Authority {
        fn new(test: &str, key: &str) -> Authority {
            let pki = Pki::new(test);
            pki.root("top");
            pki.issue("root", "top", key, "basicConstraints=critical,CA:true");
            pki.issue("leaf", "root", "ec", "subjectAltName=DNS:shop.example");
            pki.issue("responder", "root", "ec", "extendedKeyUsage=OCSPSigning");
            let (leaf, issuer) = (pki.der("leaf"), pki.der("root"));
            Authority { pki, leaf, issuer }
        }

        fn answer(&self, state: &str, signer: &str, how: &str) -> Vec<u8> {
            let serial = hexadecimal::text(Parts::read(&self.leaf).unwrap().serial).to_uppercase();
            let serial = serial.strip_prefix("00").unwrap_or(&serial).to_owned();
            self.pki.write("index", format!("{state}\t{serial}\tunknown\t/CN=leaf\n"));
            self.pki.write("request", request(&self.leaf, &self.issuer).unwrap());
            self.pki.openssl(&format!(
                "ocsp -index index -CA root.pem -rsigner {signer}.pem -rkey {signer}.key -reqin \
                 request -respout response {how}"
            ));
            self.pki.read("response")
        }

        fn read(&self, response: &[u8], now: SystemTime) -> Result<Answer, Refused> {
            read(response, &self.leaf, &self.issuer, now)
        }
    }

    #[test]
    fn a_request_is_what_openssl_asks_for() {
        let authority = Authority::new("ocsp-request", "ec");
        authority.pki.openssl("ocsp -issuer root.pem -cert leaf.pem -no_nonce -reqout theirs");
        let ours = request(&authority.leaf, &authority.issuer).unwrap();
        assert_eq!(ours, authority.pki.read("theirs"));
        assert!(request(&authority.leaf, &authority.leaf).is_err());
    }

    #[test]
    fn answers_are_believed_of_the_issuer_and_of_its_responder() {
        for (test, key, hash) in [
            ("ocsp-rsa", "rsa:2048", "sha256"),
            ("ocsp-rsa384", "rsa:2048", "sha384"),
            ("ocsp-rsa512", "rsa:2048", "sha512"),
            ("ocsp-p256", "ec", "sha256"),
            ("ocsp-p384", "ec -pkeyopt ec_paramgen_curve:secp384r1", "sha384"),
        ] {
            let authority = Authority::new(test, key);
            for signer in ["root", "responder"] {
                for name in ["", "-resp_key_id"] {
                    let how = format!("-ndays 2 -rmd {hash} {name}");
                    let response = authority.answer(VALID, signer, &how);
                    let answer = authority.read(&response, now()).unwrap();
                    assert_eq!(answer.status, Status::Good, "{test} {signer} {name}");
                    let next = answer.next_update.unwrap();
                    assert_eq!(next.duration_since(answer.this_update).unwrap(), 48 * HOUR);
                }
            }
        }
    }

    #[test]
    fn what_a_responder_says_of_a_certificate_is_understood() {
        let authority = Authority::new("ocsp-status", "ec");
        let revoked = authority.answer(REVOKED, "root", "-ndays 2");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        assert_eq!(authority.read(&revoked, now()).unwrap().status, Status::Revoked { at });
        let unknown =
            authority.answer(&format!("{VALID}\t01\tunknown\t/CN=x\n{VALID}"), "root", "");
        assert!(authority.read(&unknown, now()).is_ok());
        authority.pki.write("index", "");
        authority.pki.openssl(
            "ocsp -index index -CA root.pem -rsigner root.pem -rkey root.key -reqin request \
             -respout response",
        );
        let unknown = authority.pki.read("response");
        assert_eq!(authority.read(&unknown, now()), Err(Refused::Unknown));
        let open = authority.answer(VALID, "root", "");
        assert_eq!(authority.read(&open, now()).unwrap().next_update, None);
        let late = authority.read(&open, now() + limits::OCSP_UNDATED_KEPT + HOUR);
        assert!(matches!(late, Err(Refused::Expired(_))), "it is no answer for ever: {late:?}");
        for code in [1, 2, 3, 5, 6] {
            let declined = [tag::SEQUENCE, 3, tag::ENUMERATED, 1, code];
            let expected = Err(Refused::Declined(u32::from(code)));
            assert_eq!(authority.read(&declined, now()), expected);
        }
    }

    #[test]
    fn an_answer_outside_its_time_is_refused() {
        let authority = Authority::new("ocsp-time", "ec");
        let response = authority.answer(VALID, "root", "-ndays 2");
        assert!(authority.read(&response, now() + 47 * HOUR).is_ok());
        let late = authority.read(&response, now() + 49 * HOUR);
        assert!(matches!(late, Err(Refused::Expired(_))), "{late:?}");
        let early = authority.read(&response, now() - HOUR);
        assert!(matches!(early, Err(Refused::FromTheFuture(_))), "{early:?}");
    }

    #[test]
    fn answers_of_strangers_are_refused() {
        let authority = Authority::new("ocsp-strangers", "ec");
        let pki = &authority.pki;
        pki.issue("server", "root", "ec", "extendedKeyUsage=serverAuth");
        pki.issue("bare", "root", "ec", "basicConstraints=CA:false");
        pki.root("evil");
        pki.issue("outsider", "evil", "ec", "extendedKeyUsage=OCSPSigning");
        pki.issue("cousin", "top", "ec", "extendedKeyUsage=OCSPSigning");
        for signer in ["server", "bare", "evil", "outsider", "cousin"] {
            let response = authority.answer(VALID, signer, "-ndays 2");
            assert_eq!(authority.read(&response, now()), Err(Refused::Stranger), "{signer}");
        }
        let without = authority.answer(VALID, "responder", "-ndays 2 -resp_no_certs");
        assert_eq!(authority.read(&without, now()), Err(Refused::Stranger));
        let weak = authority.answer(VALID, "root", "-ndays 2 -rmd sha1");
        assert_eq!(authority.read(&weak, now()), Err(Refused::UnsupportedSignature));
    }

    #[test]
    fn a_responder_with_the_issuers_name_but_not_its_signature_is_refused() {
        let authority = Authority::new("ocsp-forged", "ec");
        let pki = &authority.pki;
        pki.openssl(
            "req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout \
                     forged.key -out forged.pem -subj /O=Corelane/OU=Tests/CN=root",
        );
        let response = authority.answer(VALID, "forged", "-ndays 2");
        assert_eq!(authority.read(&response, now()), Err(Refused::WrongSignature));
        pki.write("false.ext", "extendedKeyUsage=OCSPSigning");
        pki.openssl(
            "x509 -req -in responder.csr -CA forged.pem -CAkey forged.key -CAcreateserial \
             -extfile false.ext -out false.pem",
        );
        pki.join("false.key", &["responder.key"]);
        let response = authority.answer(VALID, "false", "-ndays 2");
        assert_eq!(authority.read(&response, now()), Err(Refused::WrongSignature));
    }

    #[test]
    fn an_answer_about_another_certificate_is_refused() {
        let authority = Authority::new("ocsp-other", "ec");
        let response = authority.answer(VALID, "root", "-ndays 2");
        authority.pki.issue("other", "root", "ec", "subjectAltName=DNS:other.example");
        let other = authority.pki.der("other");
        let result = read(&response, &other, &authority.issuer, now());
        assert_eq!(result, Err(Refused::NotForOurs));
    }

    #[test]
    fn an_answer_that_is_cut_or_changed_anywhere_is_refused() {
        let authority = Authority::new("ocsp-damaged", "ec");
        let response = authority.answer(VALID, "responder", "-ndays 2");
        let good = authority.read(&response, now()).unwrap();
        for length in 0..response.len() {
            assert!(authority.read(&response[..length], now()).is_err(), "{length}");
        }
        for at in 0..response.len() {
            let mut bytes = response.clone();
            bytes[at] ^= 0x05;
            // Few bytes are not under a signature; none of them says anything about the answer.
            if let Ok(answer) = authority.read(&bytes, now()) {
                assert_eq!(answer, good, "{at}");
            }
        }
        let long = vec![0; limits::OCSP_ANSWER_BYTES_MAX + 1];
        assert_eq!(authority.read(&long, now()), Err(Refused::TooLong(long.len())));
    }
}
