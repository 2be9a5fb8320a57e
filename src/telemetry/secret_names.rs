//! Which names are those of secrets: one rule for headers, keys of queries and forms, members of
//! JSON and headers in the configuration. The words of a name decide (`X-Session-Token`,
//! `accessToken` and `user[password]` have two or more), so `monkey`, `keyboard`, `zip_code` and
//! `max_tokens` are none. Values are never looked at.

/// Of a header, or of a parameter of a query or a form.
pub fn is_secret(name: &[u8]) -> bool {
    // Many keys of queries are a letter.
    if name.len() < 2 {
        return false;
    }
    let (found, last) = looked_at(name);
    found || matches!(last.sole(), Some(b"code" | b"key"))
}

/// Of a member of what a server answers, where `key` and `code` alone are everyday words.
pub fn is_secret_member(name: &[u8]) -> bool {
    looked_at(name).0
}

/// Whether the words of a name tell, and its last two.
fn looked_at(name: &[u8]) -> (bool, Last) {
    let mut last = Last { before: Word::NONE, word: Word::NONE };
    for text in Words(name) {
        let word = Word::of(text);
        if word.length == 0 {
            continue;
        }
        last = Last { before: last.word, word };
        if is_secret_word(last.word.text()) || is_secret_pair(last.before.text(), last.word.text())
        {
            return (true, last);
        }
    }
    (is_secret_end(last.before.text(), last.word.text()), last)
}

/// Alone or with whatever is written together with it: `usertoken`, `JSESSIONID`. Every line of a
/// log asks, so the first differing letters are told apart without a search.
fn is_secret_word(word: &[u8]) -> bool {
    let ends = |ends: &[&[u8]]| ends.iter().any(|end| word.ends_with(end));
    let is_end = match word.last() {
        Some(b'd') => ends(&[b"pwd", b"sessid", b"sessionid"]),
        Some(b'e') => ends(&[b"cookie", b"signature"]),
        Some(b'n') => ends(&[b"assertion", b"authorization", b"token"]),
        Some(b't') => ends(&[b"jwt", b"secret"]),
        Some(_) | None => false,
    };
    let alone = matches!(
        word,
        b"bearer"
            | b"cookies"
            | b"csrf"
            | b"dpop"
            | b"hmac"
            | b"otp"
            | b"secrets"
            | b"session"
            | b"sid"
            | b"sig"
            | b"totp"
            | b"xsrf"
    );
    is_end || alone || has_secret_within(word)
}

/// `apikeyid`, `newpasswordagain`
fn has_secret_within(word: &[u8]) -> bool {
    let begins = |at: usize, ways: &[&[u8]]| ways.iter().any(|way| word[at..].starts_with(way));
    let follows = |at: usize, ways: &[&[u8]]| ways.iter().any(|way| word[..at].ends_with(way));
    word.windows(3).enumerate().any(|(at, three)| match three {
        b"cre" => begins(at, &[b"credential"]),
        b"key" => follows(at, &[b"access", b"api", b"private", b"secret"]),
        b"pas" => begins(at, &[b"passcode", b"passphrase", b"passwd", b"password"]),
        _ => false,
    })
}

/// Two words that are one elsewhere.
fn is_secret_pair(before: &[u8], word: &[u8]) -> bool {
    match word {
        b"key" => matches!(before, b"access" | b"api" | b"private" | b"secret" | b"signing"),
        b"word" | b"phrase" => before == b"pass",
        b"code" => matches!(
            before,
            b"auth"
                | b"backup"
                | b"login"
                | b"mfa"
                | b"pass"
                | b"recovery"
                | b"security"
                | b"verification"
        ),
        b"verifier" => before == b"code",
        b"art" | b"request" | b"response" => before == b"saml",
        _ => false,
    }
}

/// Words that tell at the end of a name only. Many keys are there to find things.
fn is_secret_end(before: &[u8], word: &[u8]) -> bool {
    match word {
        b"auth" | b"pass" | b"pw" => true,
        b"key" => !matches!(
            before,
            b"" | b"cache"
                | b"foreign"
                | b"idempotency"
                | b"object"
                | b"partition"
                | b"primary"
                | b"public"
                | b"routing"
                | b"row"
                | b"socket"
                | b"sort"
                | b"surrogate"
                | b"websocket"
        ),
        _ => false,
    }
}

/// The last words of a name, numbers left out.
struct Last {
    before: Word,
    word: Word,
}

impl Last {
    /// The only one.
    fn sole(&self) -> Option<&[u8]> {
        (self.before.length == 0).then_some(self.word.text())
    }
}

/// In lower case, without digits at its end.
struct Word {
    bytes: [u8; WORD_BYTES_MAX],
    length: usize,
}

impl Word {
    const NONE: Word = Word { bytes: [0; WORD_BYTES_MAX], length: 0 };

    fn of(text: &[u8]) -> Word {
        let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let text = &text[..text.len() - digits];
        let text = &text[text.len().saturating_sub(WORD_BYTES_MAX)..];
        let mut word = Word { length: text.len(), ..Word::NONE };
        word.bytes[..text.len()].copy_from_slice(text);
        word.bytes[..text.len()].make_ascii_lowercase();
        word
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The end of a longer word is looked at.
const WORD_BYTES_MAX: usize = 48;

/// The words of a name, as it is written.
struct Words<'n>(&'n [u8]);

impl<'n> Iterator for Words<'n> {
    type Item = &'n [u8];

    fn next(&mut self) -> Option<&'n [u8]> {
        let start = self.0.iter().position(|byte| is_of_word(*byte))?;
        let name = &self.0[start..];
        let end = (1..name.len()).find(|&at| ends_at(name, at)).unwrap_or(name.len());
        self.0 = &name[end..];
        Some(&name[..end])
    }
}

/// What is not ASCII is a letter of some language.
fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

/// `access|Token`, `API|Key`, `api|_key`
fn ends_at(name: &[u8], at: usize) -> bool {
    let (before, byte) = (name[at - 1], name[at]);
    let goes_on_small = || name.get(at + 1).is_some_and(u8::is_ascii_lowercase);
    !is_of_word(byte)
        || (byte.is_ascii_uppercase() && (!before.is_ascii_uppercase() || goes_on_small()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_by_their_words_however_they_are_joined() {
        for name in [
            "Authorization",
            "Proxy-Authorization",
            "COOKIE",
            "Set-Cookie2",
            "X-Session",
            "X-Session-Token",
            "Private-Token",
            "X-Vault-Token",
            "X-Password",
            "X-Backend-Key",
            "X-Api-Key",
            "x_api_key",
            "ApiKey",
            "apikey",
            "XAPIKEY",
            "X-Amz-Signature",
            "X-Amz-Security-Token",
            "X-Amz-Credential",
            "X-Hub-Signature-256",
            "X-Goog-IAP-JWT-Assertion",
            "X-Basic-Auth",
            "key",
            "code",
            "sig",
            "pwd",
            "user_pwd",
            "accessToken",
            "accesstoken",
            "access.token",
            "id-token",
            "OAuthToken",
            "APIKey",
            "aws_access_key_id",
            "secretKey2",
            "PassWord",
            "newpassword",
            "password_confirmation",
            "user[password]",
            "user[password][]",
            "db.passwd",
            "JSESSIONID",
            "PHPSESSID",
            "ASP.NET_SessionId",
            "connect.sid",
            "csrfmiddlewaretoken",
            "_csrf",
            "SAMLResponse",
            "client_assertion",
            "code_verifier",
            "verification_code",
            "clientSecret",
            "credentials",
            "jwt",
            "authorization_code",
            "{\"token\"",
        ] {
            assert!(is_secret(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn words_that_merely_hold_those_of_secrets_are_shown() {
        for name in [
            "",
            "-",
            "123",
            "monkey",
            "turkey",
            "keyboard",
            "keyword",
            "hockey",
            "barcode",
            "zipcode",
            "zip_code",
            "statusCode",
            "country-code",
            "encode",
            "decoder",
            "max_tokens",
            "tokens",
            "tokenizer",
            "secretary",
            "compass",
            "bypass",
            "passenger",
            "author",
            "authority",
            "design",
            "signal",
            "signup",
            "inside",
            "obsession",
            "Sec-WebSocket-Key",
            "Idempotency-Key",
            "Surrogate-Key",
            "X-Cache-Key",
            "sort_key",
            "public_key",
            "WWW-Authenticate",
            "X-Request-Id",
            "Content-Security-Policy",
            "Accept-Encoding",
            "ETag",
            "traceparent",
            "\u{17c}\u{f3}\u{142}w",
        ] {
            assert!(!is_secret(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn in_an_answer_key_and_code_alone_are_everyday_words() {
        for name in ["key", "code", "Code"] {
            assert!(is_secret(name.as_bytes()) && !is_secret_member(name.as_bytes()), "{name}");
        }
        assert!(is_secret_member(b"api_key") && is_secret_member(b"accessToken"));
    }

    #[test]
    fn a_name_of_any_length_is_looked_at_to_its_end() {
        let long = "x".repeat(10_000);
        assert!(is_secret(format!("{long}token").as_bytes()));
        assert!(is_secret(format!("{long}_token_{long}").as_bytes()));
        assert!(!is_secret(long.as_bytes()));
    }
}
