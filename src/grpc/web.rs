//! gRPC-Web: gRPC for browsers, whose `fetch` knows no trailers. They come as a last message that
//! a bit marks, and the text form writes all of it in base64. The endpoint gets plain gRPC.
//! Heads are changed as the bytes that were written for the other side.

use crate::base64::{Decoder, Encoder};
use crate::grpc::head::{Edit, append_lines, edit_lines, line};
use crate::grpc::messages::{self, Messages};
use crate::grpc::suffix;
use crate::http::head::{Method, RequestHead};
use crate::telemetry::decimal;

/// Of a route that takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    pub origins: Origins,
    pub credentials: bool,
    /// Response metadata that pages may see.
    pub exposed: Vec<Box<[u8]>>,
    /// How long a browser remembers the answer to its preflight.
    pub preflight_seconds: u64,
}

/// Pages that may call from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    Any,
    These(Vec<Box<[u8]>>),
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Binary,
    Text,
}

impl Form {
    /// Of a content type, and what it says of messages: `+proto`, or nothing.
    pub fn of(content_type: &[u8]) -> Option<(Form, &[u8])> {
        let rest = suffix(content_type, b"application/grpc-web")?;
        let (form, rest) = match suffix(rest, b"-text") {
            Some(rest) => (Form::Text, rest),
            None => (Form::Binary, rest),
        };
        matches!(rest, [] | [b'+' | b';' | b' ', ..]).then_some((form, rest))
    }

    fn name(self) -> &'static [u8] {
        match self {
            Form::Binary => b"application/grpc-web",
            Form::Text => b"application/grpc-web-text",
        }
    }
}

/// What becomes of a line of a request, as the endpoint gets it: that of plain gRPC.
pub(crate) fn request_line(name: &[u8], value: &[u8]) -> Edit {
    match Form::of(value) {
        Some((_, format)) if name.eq_ignore_ascii_case(b"content-type") => {
            Edit::Becomes([b"application/grpc", format].concat())
        }
        _ if name.eq_ignore_ascii_case(b"x-grpc-web") => Edit::Goes,
        _ => Edit::Stays,
    }
}

/// The head of a response for the client becomes that of gRPC-Web, readable for the page it is for.
pub(crate) fn response_head(out: &mut Vec<u8>, form: Form, cors: &[u8]) {
    edit_lines(out, |name, value| {
        if name.eq_ignore_ascii_case(b"content-type")
            && let Some(format) = suffix(value, b"application/grpc")
        {
            return Edit::Becomes([form.name(), format].concat());
        }
        // Who may read it is decided here, where anything is.
        let of_pages = suffix(name, b"access-control-").is_some();
        if of_pages && !cors.is_empty() { Edit::Goes } else { Edit::Stays }
    });
    append_lines(out, cors);
}

/// The body of a request on its way to the endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Upward {
    text: Option<Decoder>,
}

/// A body that is not what its content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Upward {
    pub fn new(form: Form) -> Upward {
        Upward { text: (form == Form::Text).then(Decoder::default) }
    }

    /// Turns a piece into what the endpoint gets, at its front, and tells how many bytes that is.
    pub fn turn(&mut self, piece: &mut [u8], end: bool) -> Result<usize, Malformed> {
        let Some(decoder) = &mut self.text else { return Ok(piece.len()) };
        let length = decoder.decode(piece).map_err(|_| Malformed)?;
        if end && !decoder.is_between() { Err(Malformed) } else { Ok(length) }
    }
}

/// The body of a response on its way to the client.
#[derive(Clone, Copy, Debug)]
pub struct Downward {
    text: Option<Encoder>,
    /// Where messages end: there the text is padded, so that nothing of them is held back.
    messages: Messages,
}

impl Downward {
    pub fn new(form: Form) -> Downward {
        let text = (form == Form::Text).then(Encoder::default);
        Downward { text, messages: Messages::default() }
    }

    /// Appends what the client gets for a piece.
    pub fn turn(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(encoder) = &mut self.text else { return out.extend_from_slice(piece) };
        encoder.encode(piece, out);
        let _ = self.messages.pass(piece, 0); // no length is too long
        if self.messages.is_between() {
            encoder.finish(out);
        }
    }

    /// Appends the trailers, which are lines, as the message that ends the body.
    pub fn end(&mut self, trailers: &[u8], out: &mut Vec<u8>) {
        let mut last = Vec::with_capacity(trailers.len() + usize::from(messages::PREFIX_BYTES));
        messages::prefix(TRAILERS, trailers.len(), &mut last);
        for line in trailers.split_inclusive(|&byte| byte == b'\n') {
            let colon = line.iter().position(|&byte| byte == b':').unwrap_or(0);
            last.extend(line[..colon].iter().map(u8::to_ascii_lowercase));
            last.extend_from_slice(&line[colon..]);
        }
        match &mut self.text {
            None => out.extend_from_slice(&last),
            Some(encoder) => {
                encoder.encode(&last, out);
                encoder.finish(out);
            }
        }
    }
}

/// The bit of a message's flags that says it is none.
pub const TRAILERS: u8 = 0x80;

impl Web {
    fn allows(&self, origin: &[u8]) -> bool {
        match &self.origins {
            Origins::Any => true,
            Origins::These(origins) => origins.iter().any(|known| **known == *origin),
        }
    }

    /// The lines of a response that let a page of this origin read it. None for others, whose
    /// browsers then keep it from them.
    pub fn response_lines(&self, origin: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        if self.origins != Origins::Any {
            line(b"Vary", b"Origin", &mut out);
        }
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else { return out };
        self.allow_lines(origin, &mut out);
        let mut exposed = b"grpc-status, grpc-message, grpc-status-details-bin".to_vec();
        for name in &self.exposed {
            exposed.extend_from_slice(b", ");
            exposed.extend_from_slice(name);
        }
        line(b"Access-Control-Expose-Headers", &exposed, &mut out);
        out
    }

    fn allow_lines(&self, origin: &[u8], out: &mut Vec<u8>) {
        let any = self.origins == Origins::Any;
        line(b"Access-Control-Allow-Origin", if any { b"*" } else { origin }, out);
        if self.credentials {
            line(b"Access-Control-Allow-Credentials", b"true", out);
        }
    }

    /// The answer to a preflight; `None`: pages of that origin may not call.
    pub fn preflight_lines(&self, asked: &Preflight<'_>) -> Option<Vec<u8>> {
        if !self.allows(asked.origin) {
            return None;
        }
        let mut out = Vec::new();
        self.allow_lines(asked.origin, &mut out);
        line(b"Access-Control-Allow-Methods", b"POST", &mut out);
        if !asked.headers.is_empty() {
            line(b"Access-Control-Allow-Headers", asked.headers, &mut out);
        }
        let mut seconds = Vec::new();
        decimal::integer(self.preflight_seconds, &mut seconds);
        line(b"Access-Control-Max-Age", &seconds, &mut out);
        if self.origins != Origins::Any {
            line(b"Vary", b"Origin, Access-Control-Request-Headers", &mut out);
        }
        Some(out)
    }
}

/// What a browser asks before it lets a page call (the Fetch standard's CORS-preflight request).
#[derive(Clone, Copy, Debug)]
pub struct Preflight<'h> {
    pub origin: &'h [u8],
    /// That the page wants to send.
    pub headers: &'h [u8],
}

impl<'h> Preflight<'h> {
    pub fn find(head: &RequestHead, bytes: &'h [u8]) -> Option<Preflight<'h>> {
        if head.method != Method::Options {
            return None;
        }
        head.named(bytes, b"access-control-request-method")?;
        Some(Preflight {
            origin: head.named(bytes, b"origin")?,
            headers: head.named(bytes, b"access-control-request-headers").unwrap_or_default(),
        })
    }
}

pub fn fuzz(bytes: &[u8]) {
    for form in [Form::Binary, Form::Text] {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let (mut split, mut split_out) = (Downward::new(form), Vec::new());
        split.turn(first, &mut split_out);
        split.turn(second, &mut split_out);
        split.end(bytes, &mut split_out);
        let mut back = Upward::new(form);
        let length = back.turn(&mut split_out, true).expect("what was written is read");
        assert!(split_out[..length].starts_with(bytes), "it is what it was");
        let _ = Upward::new(form).turn(&mut bytes.to_vec(), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(origins: &[&str]) -> Web {
        let boxed = |text: &&str| Box::<[u8]>::from(text.as_bytes());
        Web {
            origins: Origins::These(origins.iter().map(boxed).collect()),
            credentials: false,
            exposed: vec![b"x-trace".as_slice().into()],
            preflight_seconds: 600,
        }
    }

    fn message(length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        messages::prefix(0, length, &mut out);
        out.resize(out.len() + length, b'm');
        out
    }

    #[test]
    fn the_form_and_the_format_are_in_the_content_type() {
        let cases: [(&str, Option<(Form, &str)>); 6] = [
            ("application/grpc-web", Some((Form::Binary, ""))),
            ("application/grpc-web+proto", Some((Form::Binary, "+proto"))),
            ("Application/gRPC-Web-Text+thrift", Some((Form::Text, "+thrift"))),
            ("application/grpc-web-text; a=b", Some((Form::Text, "; a=b"))),
            ("application/grpc-webby", None),
            ("application/grpc+proto", None),
        ];
        for (content_type, expected) in cases {
            let found = Form::of(content_type.as_bytes());
            assert_eq!(
                found,
                expected.map(|(form, rest)| (form, rest.as_bytes())),
                "{content_type}"
            );
        }
    }

    #[test]
    fn the_endpoint_sees_plain_grpc() {
        let mut head = b"POST /a.B/C HTTP/1.1\r\nHost: h\r\nX-Grpc-Web: 1\r\n\
            content-type: application/grpc-web-text+proto\r\nX-A: b\r\n\r\n"
            .to_vec();
        edit_lines(&mut head, request_line);
        let expected = "POST /a.B/C HTTP/1.1\r\nHost: h\r\ncontent-type: application/grpc+proto\r\n\
             X-A: b\r\n\r\n";
        assert_eq!(String::from_utf8(head).unwrap(), expected);
    }

    #[test]
    fn the_page_sees_grpc_web_and_may_read_it() {
        let mut head = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc+proto\r\n\
            Access-Control-Allow-Origin: *\r\nx-trace: 7\r\n\r\n"
            .to_vec();
        let cors = web(&["https://a.test"]).response_lines(Some(b"https://a.test"));
        response_head(&mut head, Form::Text, &cors);
        let expected = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web-text+proto\r\n\
             x-trace: 7\r\nVary: Origin\r\nAccess-Control-Allow-Origin: https://a.test\r\n\
             Access-Control-Expose-Headers: grpc-status, grpc-message, grpc-status-details-bin, \
             x-trace\r\n\r\n";
        assert_eq!(String::from_utf8(head).unwrap(), expected);
    }

    #[test]
    fn a_page_from_elsewhere_may_not_read_it() {
        for origin in [None, Some(b"https://b.test".as_slice()), Some(b"null")] {
            assert_eq!(web(&["https://a.test"]).response_lines(origin), b"Vary: Origin\r\n");
        }
        let asked = Preflight { origin: b"https://b.test", headers: b"x-grpc-web" };
        assert_eq!(web(&["https://a.test"]).preflight_lines(&asked), None);
        assert_eq!(web(&[]).preflight_lines(&asked), None);
    }

    #[test]
    fn a_preflight_is_answered_for_the_headers_that_it_asks_for() {
        let asked = Preflight { origin: b"https://a.test", headers: b"content-type,x-grpc-web" };
        let lines = web(&["https://a.test"]).preflight_lines(&asked).unwrap();
        let expected = "Access-Control-Allow-Origin: https://a.test\r\n\
             Access-Control-Allow-Methods: POST\r\n\
             Access-Control-Allow-Headers: content-type,x-grpc-web\r\n\
             Access-Control-Max-Age: 600\r\nVary: Origin, Access-Control-Request-Headers\r\n";
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
        let any = Web { origins: Origins::Any, ..web(&[]) };
        let lines = String::from_utf8(any.preflight_lines(&asked).unwrap()).unwrap();
        assert!(lines.contains("Allow-Origin: *\r\n") && !lines.contains("Vary"), "{lines}");
    }

    #[test]
    fn trailers_come_as_a_last_message_with_names_in_lower_case() {
        let mut out = Vec::new();
        Downward::new(Form::Binary).end(b"Grpc-Status: 0\r\nX-A: B:C\r\n", &mut out);
        assert_eq!(out, b"\x80\0\0\0\x1agrpc-status: 0\r\nx-a: B:C\r\n");
        let mut none = Vec::new();
        Downward::new(Form::Binary).end(b"", &mut none);
        assert_eq!(none, b"\x80\0\0\0\0");
    }

    #[test]
    fn text_holds_back_nothing_of_a_whole_message() {
        let mut down = Downward::new(Form::Text);
        let mut back = Upward::new(Form::Text);
        let mut got = Vec::new();
        for length in [0, 1, 2, 3, 100] {
            let mut out = Vec::new();
            for byte in message(length) {
                down.turn(&[byte], &mut out);
            }
            let count = back.turn(&mut out, true).expect("padded at the end of a message");
            got.extend_from_slice(&out[..count]);
            assert!(got.ends_with(&message(length)), "{length}");
        }
    }

    #[test]
    fn a_text_that_ends_in_the_middle_or_is_none_is_refused() {
        let mut up = Upward::new(Form::Text);
        assert_eq!(up.turn(&mut b"AAAA".to_vec(), false), Ok(3));
        assert_eq!(up.turn(&mut b"AA".to_vec(), true), Err(Malformed));
        assert_eq!(Upward::new(Form::Text).turn(&mut b"A*AA".to_vec(), false), Err(Malformed));
        assert_eq!(Upward::new(Form::Binary).turn(&mut b"A*AA".to_vec(), true), Ok(4));
        fuzz(&message(40));
    }
}
