//! Asking an OCSP responder (RFC 6960 appendix A.1): by POST, over plain HTTP, as certificates name
//! it: its answers are signed. Blocks; whatever the responder does, it takes bounded time and
//! memory.

use std::time::{Duration, Instant};

use crate::config::{WrongUrl, http_url};
use crate::http::head::Method;
use crate::http1::blocking_client::{End, Line, Request, reason};
use crate::limits;
use crate::plan::HttpUrl;

/// Where a certificate says that its responder is. The error: why it is not asked.
pub(crate) fn url(given: &str) -> Result<HttpUrl, String> {
    let url = http_url(given).map_err(|wrong| match wrong {
        WrongUrl::Https => "its responder wants https, and only http:// is spoken".to_owned(),
        WrongUrl::User => "the URL of its responder has a user in it".to_owned(),
        WrongUrl::Other(message) => format!("its responder: {message}"),
    })?;
    let path = if url.path.is_empty() { "/".to_owned() } else { url.path };
    Ok(HttpUrl { path, ..url })
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The responder cannot be reached, or is silent.
    Away(String),
    Wrong(String),
}

/// The body of its answer, whatever it says.
pub(crate) fn ask(
    url: &HttpUrl,
    question: &[u8],
    timeout: Duration,
    clock: fn() -> Instant,
) -> Result<Vec<u8>, NoAnswer> {
    let version = env!("CARGO_PKG_VERSION");
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: corelane/{version}\r\n\
         Content-Type: application/ocsp-request\r\nContent-Length: {}\r\n\
         Accept: application/ocsp-response\r\nConnection: close\r\n\r\n",
        url.path,
        url.authority,
        question.len()
    );
    let request = Request {
        address: &url.address,
        method: Method::Post,
        head: head.as_bytes(),
        body: question,
        answer_bytes_max: limits::OCSP_ANSWER_BYTES_MAX,
    };
    let by = clock() + timeout;
    let answer = Line::new(clock).ask(request, by);
    let answer = answer.map_err(|error| NoAnswer::Away(reason(&error)))?;
    let wrong = |message: String| Err(NoAnswer::Wrong(message));
    match (answer.status, answer.end) {
        (200, End::Cut) => {
            wrong(format!("its answer is longer than {} bytes", limits::OCSP_ANSWER_BYTES_MAX))
        }
        // What is cut is malformed, and what is signed cannot be another's.
        (200, End::Marked | End::Exceeded | End::Closed) => Ok(answer.body),
        (status, _) => wrong(format!("it answered {status}, expected 200")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::engine;

    /// What a responder that says this is taken for; and what it was asked.
    fn asked(says: &'static [u8]) -> (Result<Vec<u8>, NoAnswer>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = url(&format!("http://{}/ocsp", listener.local_addr().unwrap())).unwrap();
        let responder = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut bytes = [0; 1000];
            let mut seen = String::new();
            while !seen.ends_with("question") {
                let count = client.read(&mut bytes).unwrap();
                seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
            client.write_all(says).unwrap();
            seen
        });
        let patience = Duration::from_secs(20);
        let answer = ask(&place, b"question", patience, engine::precise_now);
        (answer, responder.join().unwrap())
    }

    #[test]
    fn a_question_is_posted_and_the_body_of_the_answer_is_the_answer() {
        let (answer, seen) = asked(b"HTTP/1.0 200 OK\r\n\r\nan answer");
        assert_eq!(answer, Ok(b"an answer".to_vec()));
        assert!(seen.starts_with("POST /ocsp HTTP/1.1\r\nHost: 127.0.0.1:"), "{seen}");
        assert!(seen.contains("\r\nContent-Type: application/ocsp-request\r\n"), "{seen}");
        assert!(seen.contains("\r\nContent-Length: 8\r\n"), "{seen}");
    }

    #[test]
    fn what_is_no_answer_is_said() {
        let wrong = |says| match asked(says).0 {
            Err(NoAnswer::Wrong(message)) => message,
            other => panic!("{other:?}"),
        };
        assert!(wrong(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").contains("answered 404"));
        static LONG: &[u8] = &{
            let mut long = [b'x'; limits::OCSP_ANSWER_BYTES_MAX + 100];
            let head = b"HTTP/1.0 200 OK\r\n\r\n";
            let mut at = 0;
            while at < head.len() {
                long[at] = head[at];
                at += 1;
            }
            long
        };
        assert!(wrong(LONG).contains("longer than 65536 bytes"));
        assert!(matches!(asked(b"").0, Err(NoAnswer::Away(_))));
    }

    #[test]
    fn only_plain_http_is_asked() {
        assert_eq!(url("http://a.example").unwrap().path, "/");
        assert!(url("https://a.example/").unwrap_err().contains("only http:// is spoken"));
        for other in ["ldap://a.example/", "http://u@a.example/", "http://", "", "http://a/b c"] {
            assert!(url(other).is_err(), "{other}");
        }
    }
}
