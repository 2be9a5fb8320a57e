//! What an error is answered with: a page of the operator's, or the JSON form. It takes the place
//! of what the failure table, a `respond` without a body or, where the page says so, the upstream
//! would have said. The status stays, and so do the headers that a status cannot be without.

use std::borrow::Cow;
use std::task::Poll;

use crate::engine::{self, Side};
use crate::exchange::Exchange;
use crate::exchange::failure::Failure;
use crate::exchange::relay::Downloaded;
use crate::http::error_page::{Facts, Shows};
use crate::http::head::{Keep, Line, RequestHead, ResponseHead};
use crate::http::reply::{Extra, Reply, error_body, reason};
use crate::http1::body::{Decoder, Left};
use crate::limits;
use crate::plan::Respond;
use crate::shard::generation::Generation;
use crate::tls::stream::Stream;

impl Exchange {
    /// The answer to a failure; `None` when it has none.
    pub(super) fn failed<'g>(
        &self,
        generation: &'g Generation,
        failure: Failure,
    ) -> Option<Reply<'g>> {
        let row = failure.row();
        if row.status != 0
            && let Some(answer) = self.failed_call(generation, failure)
        {
            return Some(answer);
        }
        let answer = Reply::failure(failure, self.request_id(), engine::wall_clock())?;
        match self.page(generation, row.status, row.code, row.message) {
            Some(page) => Some(Reply { extra: answer.extra, ..page }),
            None => Some(answer),
        }
    }

    /// One that has a body is what the operator wants to be said.
    pub(super) fn responded<'g>(
        &self,
        generation: &'g Generation,
        respond: &'g Respond,
    ) -> Reply<'g> {
        let page = (respond.status >= 400 && respond.body.is_empty())
            .then(|| self.page_of_status(generation, respond.status))
            .flatten();
        page.unwrap_or_else(|| Reply::respond(respond))
    }

    /// Instead of an error of the upstream, of which `lines` stay.
    pub(super) fn replacement<'g>(
        &self,
        generation: &'g Generation,
        replaced: &mut Replaced,
    ) -> Reply<'g> {
        if let Some(answer) = self.no_answer_to_a_call(replaced.status) {
            return answer;
        }
        let extra = Extra::Lines(std::mem::take(&mut replaced.lines));
        let page = self.page_of_status(generation, replaced.status);
        let page = page.unwrap_or_else(|| Reply::json(replaced.status, Vec::new()));
        Reply { extra, ..page }
    }

    /// For an error that is no failure of ours: its status says all that is known.
    fn page_of_status<'g>(&self, generation: &'g Generation, status: u16) -> Option<Reply<'g>> {
        let message = Some(reason(status)).filter(|known| !known.is_empty()).unwrap_or("Error");
        let letter = |byte: u8| if byte.is_ascii_alphanumeric() { byte as char } else { '_' };
        let code: String = message.bytes().map(|b| letter(b.to_ascii_uppercase())).collect();
        self.page(generation, status, &code, message)
    }

    /// `None`: no page is configured.
    fn page<'g>(
        &self,
        generation: &'g Generation,
        status: u16,
        code: &str,
        message: &str,
    ) -> Option<Reply<'g>> {
        let plan = &generation.plan;
        let route = self.route.map(|id| generation.route(id));
        let page = plan.error_page(route, status)?;
        let (bytes, at) = (self.input.head(), engine::wall_clock());
        let json = || Reply::json(status, error_body(code, message, self.request_id(), at));
        let (content_type, template) = match &page.shows {
            Shows::BuiltIn => return Some(json()),
            Shows::Page { content_type, template } => (content_type, template),
        };
        let varies = !template.is_json();
        if varies && prefers_json(&self.head, bytes) {
            return Some(Reply { varies, ..json() });
        }
        let facts = Facts {
            status,
            code,
            message,
            request_id: self.request_id(),
            at,
            method: self.head.method_name.of(bytes),
            host: self.head.authority.of(bytes),
            path: self.head.path.of(bytes),
            client: self.client_address,
            proxy_id: &plan.proxy_id,
            trace_id: self.trace_id(),
        };
        let body = match template.fixed() {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(template.render(&facts)),
        };
        Some(Reply { status, content_type, body, extra: Extra::None, varies })
    }
}

/// Names JSON in `Accept` (RFC 9110 section 12.5.1) and does not name HTML: a program. Browsers
/// name HTML, and whoever takes anything says nothing of either.
fn prefers_json(head: &RequestHead, bytes: &[u8]) -> bool {
    let accepts = |line: &&Line| line.name.of(bytes).eq_ignore_ascii_case(b"accept");
    let lines = head.lines.iter().filter(accepts).map(|line| line.value.of(bytes));
    let (mut json, mut html) = (false, false);
    for range in lines.flat_map(|value| value.split(|&byte| byte == b',')) {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        if parts.any(is_never) {
            continue;
        }
        json |= name.eq_ignore_ascii_case(b"application/json");
        html |= name.eq_ignore_ascii_case(b"text/html");
    }
    json && !html
}

/// `q=0`, with as many zeros as one likes.
fn is_never(parameter: &[u8]) -> bool {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="));
    value.is_some_and(|value| {
        value.starts_with(b"0") && value.iter().all(|byte| matches!(byte, b'0' | b'.'))
    })
}

/// An error of the upstream that a page takes the place of.
pub(super) struct Replaced {
    status: u16,
    lines: Vec<(Vec<u8>, Vec<u8>)>,
    body: Decoder,
    is_over: bool,
}

impl Replaced {
    /// `received` is the head and what has come behind it.
    pub(super) fn begin(head: &ResponseHead, received: &mut [u8]) -> Downloaded {
        let (bytes, rest) = received.split_at_mut(head.bytes);
        let bytes = &*bytes;
        let stays = |line: &&Line| {
            let name = line.name.of(bytes);
            !line.hop_by_hop && KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept))
        };
        let own = |line: &Line| (line.name.of(bytes).to_vec(), line.value.of(bytes).to_vec());
        let lines = head.lines.iter().filter(stays).map(own).collect();
        let mut body = Decoder::new(head.framing);
        let decoded = body.decode(rest);
        let is_over = decoded.is_ok_and(|decoded| decoded.end);
        // Bytes behind the end belong to no request of ours.
        let is_sound = decoded.is_ok_and(|decoded| decoded.consumed == rest.len());
        Downloaded {
            upstream: if is_sound { head.keep } else { Keep::Close },
            client: Keep::Close,
            promised: head.promised(),
            replaced: Some(Box::new(Replaced { status: head.status, lines, body, is_over })),
            switched: None,
        }
    }

    /// Reads the rest of its body, if that is little and comes soon: then the connection can be
    /// used again.
    pub(super) async fn skip_rest(&mut self, upstream: &Stream) -> Keep {
        let mut read = 0;
        upstream.set_deadline(Side::Read, Some(limits::REPLACED_BODY_TIMEOUT));
        while !self.is_over {
            let left = self.body.left().map_or(0, Left::most);
            if left.max(read) > limits::REPLACED_BODY_BYTES_MAX
                || upstream.ready(Side::Read).await.is_err()
            {
                return Keep::Close;
            }
            let mut buffer = engine::buffer();
            let count = match upstream.try_recv(&mut buffer).await {
                Poll::Ready(Ok(count @ 1..)) => count,
                Poll::Ready(Ok(0) | Err(_)) => return Keep::Close,
                Poll::Pending => continue, // a part of a record: no buffer waits for the rest
            };
            read += count as u64;
            match self.body.decode(&mut buffer[..count]) {
                Ok(decoded) if decoded.consumed == count => self.is_over = decoded.end,
                Ok(_) | Err(_) => return Keep::Close,
            }
        }
        Keep::Open
    }
}

/// What a 401, a 405 and a 503 or 429 say besides their status (RFC 9110 sections 11.6.1, 10.2.1
/// and 10.2.3). All else goes with the body that it came with, as in nginx.
const KEPT: [&[u8]; 3] = [b"www-authenticate", b"allow", b"retry-after"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse::{self, HeadLimits};

    fn prefers(accept: &str) -> bool {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{accept}\r\n");
        let limits = HeadLimits { url_bytes_max: 100, header_bytes_max: 1000, headers_max: 10 };
        let mut head = RequestHead::default();
        parse::request(text.as_bytes(), &limits, &mut head).unwrap();
        prefers_json(&head, text.as_bytes())
    }

    #[test]
    fn programs_name_json_and_browsers_name_html() {
        assert!(prefers("Accept: application/json\r\n"));
        assert!(prefers("accept: text/plain\r\nACCEPT: Application/JSON;q=0.5, */*\r\n"));
        assert!(prefers("Accept: application/json, text/html;q=0\r\n"));
        for other in [
            "",
            "Accept: */*\r\n",
            "Accept: text/html, application/json\r\n",
            "Accept: application/json; q=0.00\r\n",
            "Accept: application/jsonp\r\n",
            "X-Accept: application/json\r\n",
        ] {
            assert!(!prefers(other), "{other}");
        }
    }
}
