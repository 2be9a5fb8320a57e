//! The admin API from the other side: one request to a running process, for commands. It blocks;
//! what comes back is bounded and read as strictly as it is written.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::limits;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// The error says where, what, and what to do.
pub(crate) fn post(
    address: SocketAddr,
    path: &str,
    token: Option<&str>,
    patience: Duration,
) -> Result<Reply, String> {
    let mut stream = TcpStream::connect_timeout(&address, limits::ADMIN_TIMEOUT).map_err(|e| {
        format!("cannot connect to the admin API at {address}: {e}; --admin says where it is")
    })?;
    let authorization =
        token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Content-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    let lost = |error: std::io::Error| {
        format!("{address} did not answer: {error}; its log says what became of this")
    };
    stream.set_read_timeout(Some(patience)).map_err(lost)?;
    stream.set_write_timeout(Some(limits::ADMIN_TIMEOUT)).map_err(lost)?;
    stream.write_all(request.as_bytes()).map_err(lost)?;
    let mut bytes = Vec::new();
    let most = limits::ADMIN_BODY_BYTES_MAX as u64;
    stream.take(most).read_to_end(&mut bytes).map_err(lost)?;
    read(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| format!("what {address} answers is no admin API; --admin says where it is"))
}

/// `None`: not a whole response with a body of known length.
fn read(text: &str) -> Option<Reply> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Some(Reply { status, body: body.get(..length?)?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_responses_are_taken() {
        let good = "HTTP/1.1 200 OK\r\nA: b\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(read(good), Some(Reply { status: 200, body: "{}".to_owned() }));
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 x\r\nContent-Length: 0\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
