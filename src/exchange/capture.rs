//! What an exchange keeps for a log that shows more than its line: the response's head, and as much
//! of its bodies as the configuration asks for and the core has room for. Taken as they stream by;
//! a core without such a log, or a route that it leaves out, pays one branch.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::exchange::Progress;
use crate::http::head::RequestHead;
use crate::limits;
use crate::telemetry::settings::{BodyCapture, Capturing, media_type};
use crate::telemetry::tap::Tap;

#[derive(Debug, Default)]
pub struct Capture {
    /// As the client got it.
    response_head: Vec<u8>,
    pub request: Body,
    pub response: Body,
}

/// The beginning of a body.
#[derive(Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    /// Of the whole body, as far as it came.
    pub total: u64,
    /// How much of it is kept; 0: nothing.
    max: usize,
    pub is_json: bool,
    pub is_form: bool,
    /// What all bodies of the core hold together.
    held: Held,
}

/// Bytes of a core's captured bodies; a body gives back what it took.
type Held = Rc<Cell<usize>>;

impl Capture {
    /// The value of the first line of this name.
    pub fn response_header(&self, name: &[u8]) -> Option<&[u8]> {
        header(&self.response_head, name)
    }

    /// As the client got them, in their order.
    pub fn response_headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = self.response_head.split(|&byte| byte == b'\n').skip(1);
        let lines = lines.take_while(|line| !line.trim_ascii().is_empty());
        lines.filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }

    fn clear(&mut self) {
        self.response_head.clear();
        self.request.forget();
        self.response.forget();
    }
}

impl Capture {
    fn keep_response_head(&mut self, settings: &Capturing, head: &[u8]) {
        self.response_head.clear();
        let end = head.windows(4).position(|window| window == b"\r\n\r\n");
        self.response_head.extend_from_slice(&head[..end.map_or(head.len(), |end| end + 2)]);
        let content_type = header(&self.response_head, b"content-type").unwrap_or_default();
        self.response.begin(settings.response_body.as_ref(), content_type);
    }
}

fn header<'h>(head: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    let lines = head.split(|&byte| byte == b'\n').skip(1);
    lines.take_while(|line| !line.trim_ascii().is_empty()).find_map(|line| {
        let (found, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

impl Body {
    pub fn is_wanted(&self) -> bool {
        self.max > 0
    }

    pub fn is_truncated(&self) -> bool {
        self.total > self.bytes.len() as u64
    }

    fn begin(&mut self, settings: Option<&BodyCapture>, content_type: &[u8]) {
        let settings = settings.filter(|settings| settings.takes(content_type));
        self.max = settings.map_or(0, |settings| settings.bytes_max);
        let media = media_type(content_type);
        let end = &media[media.len().saturating_sub(b"+json".len())..];
        self.is_json = [b"+json", b"/json"].iter().any(|json| end.eq_ignore_ascii_case(*json));
        self.is_form = media.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
    }

    fn push(&mut self, data: &[u8], cores: usize) {
        if self.max == 0 {
            return;
        }
        self.total += data.len() as u64;
        let free = (limits::CAPTURED_BYTES_MAX / cores).saturating_sub(self.held.get());
        // After the first byte that was not kept, none is: the beginning has no holes.
        let is_whole = self.total == (self.bytes.len() + data.len()) as u64;
        let room = if is_whole { self.max.saturating_sub(self.bytes.len()).min(free) } else { 0 };
        let kept = &data[..data.len().min(room)];
        self.held.set(self.held.get() + kept.len());
        self.bytes.extend_from_slice(kept);
    }

    /// Again from its first byte, to another endpoint.
    fn restart(&mut self) {
        self.held.set(self.held.get() - self.bytes.len());
        self.bytes.clear();
        self.total = 0;
    }

    fn forget(&mut self) {
        self.restart();
        self.max = 0;
        if self.bytes.capacity() > BODY_BYTES_KEPT {
            self.bytes = Vec::new();
        }
    }
}

impl Drop for Body {
    /// Of an exchange that was cut.
    fn drop(&mut self) {
        self.held.set(self.held.get() - self.bytes.len());
    }
}

/// A core's captures that are not in use, so that an exchange allocates none.
#[derive(Debug)]
pub(crate) struct Captures {
    #[expect(clippy::vec_box, reason = "an exchange holds one as a box, and gives that box back")]
    free: RefCell<Vec<Box<Capture>>>,
    held: Held,
    cores: usize,
}

impl Captures {
    pub(crate) fn new(cores: usize) -> Captures {
        Captures { free: RefCell::default(), held: Held::default(), cores: cores.max(1) }
    }

    pub(crate) fn give_back(&self, mut capture: Box<Capture>) {
        let mut free = self.free.borrow_mut();
        if free.len() < limits::CAPTURES_KEPT {
            capture.clear();
            free.push(capture);
        }
    }
}

/// An exchange's place for a capture.
#[derive(Debug, Default)]
pub(crate) struct Capturer {
    capture: RefCell<Option<Box<Capture>>>,
    /// What an operator watches is kept beside it.
    tapped: RefCell<Option<(Rc<Tap>, Box<Capture>)>>,
    /// Either is there.
    is_on: Cell<bool>,
    cores: Cell<usize>,
}

impl Capturer {
    #[cold]
    pub(crate) fn begin(
        &self,
        captures: &Captures,
        settings: &Capturing,
        head: &RequestHead,
        bytes: &[u8],
    ) {
        let capture = self.begun(captures, settings, head, bytes);
        *self.capture.borrow_mut() = Some(capture);
    }

    #[cold]
    pub(crate) fn begin_tapped(
        &self,
        captures: &Captures,
        tap: Rc<Tap>,
        head: &RequestHead,
        bytes: &[u8],
    ) {
        let capture = self.begun(captures, tap.capturing(), head, bytes);
        *self.tapped.borrow_mut() = Some((tap, capture));
    }

    fn begun(
        &self,
        captures: &Captures,
        settings: &Capturing,
        head: &RequestHead,
        bytes: &[u8],
    ) -> Box<Capture> {
        let mut capture = captures.free.borrow_mut().pop().unwrap_or_default();
        capture.request.held = Rc::clone(&captures.held);
        capture.response.held = Rc::clone(&captures.held);
        let content_type = head.named(bytes, b"content-type").unwrap_or_default();
        capture.request.begin(settings.request_body.as_ref(), content_type);
        self.cores.set(captures.cores);
        self.is_on.set(true);
        capture
    }

    /// For each capture that is there.
    #[cold]
    fn each(&self, mut change: impl FnMut(&mut Capture, usize)) {
        let cores = self.cores.get();
        if let Some(capture) = self.capture.borrow_mut().as_deref_mut() {
            change(capture, cores);
        }
        if let Some((_, capture)) = self.tapped.borrow_mut().as_mut() {
            change(capture, cores);
        }
    }

    pub(crate) fn take_tapped(&self) -> Option<(Rc<Tap>, Box<Capture>)> {
        if self.is_on.get() { self.tapped.take() } else { None }
    }

    pub(crate) fn take(&self) -> Option<Box<Capture>> {
        self.capture.take()
    }
}

/// The hooks of those who move bytes.
impl Progress {
    /// The request's body goes up from its first byte.
    pub(crate) fn upload_begins(&self) {
        if self.capturer.is_on.get() {
            self.capturer.each(|capture, _| capture.request.restart());
        }
    }

    pub(crate) fn note_request_body(&self, data: &[u8]) {
        if self.capturer.is_on.get() {
            self.capturer.each(|capture, cores| capture.request.push(data, cores));
        }
    }

    /// The final head as it leaves; bytes behind its empty line do not matter.
    pub(crate) fn note_response_head(&self, settings: Option<&Capturing>, head: &[u8]) {
        if !self.capturer.is_on.get() {
            return;
        }
        if let Some(capture) = self.capturer.capture.borrow_mut().as_deref_mut()
            && let Some(settings) = settings
        {
            capture.keep_response_head(settings, head);
        }
        if let Some((tap, capture)) = self.capturer.tapped.borrow_mut().as_mut() {
            capture.keep_response_head(tap.capturing(), head);
        }
    }

    /// More of a body that was carried by unread: its beginning is kept, or it is not wanted.
    pub(crate) fn request_carried(&self, count: usize) {
        if self.capturer.is_on.get() {
            self.capturer.each(|capture, _| capture.request.total += count as u64);
        }
    }

    pub(crate) fn response_carried(&self, count: usize) {
        if self.capturer.is_on.get() {
            self.capturer.each(|capture, _| capture.response.total += count as u64);
        }
    }

    pub(crate) fn note_response_body(&self, data: &[u8]) {
        if self.capturer.is_on.get() {
            self.capturer.each(|capture, cores| capture.response.push(data, cores));
        }
    }
}

/// Of a body whose capture waits for its next exchange.
const BODY_BYTES_KEPT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn body(max: usize, held: &Held) -> Body {
        let mut body = Body::default();
        (body.max, body.held) = (max, Rc::clone(held));
        body
    }

    #[test]
    fn a_body_is_cut_at_its_cap_and_says_so() {
        let held = Held::default();
        let mut body = body(5, &held);
        body.push(b"abc", 1);
        assert!(!body.is_truncated());
        body.push(b"defg", 1);
        body.push(b"h", 1);
        assert_eq!((body.bytes.as_slice(), body.total), (&b"abcde"[..], 8));
        assert!(body.is_truncated());
        body.restart();
        assert_eq!((body.total, held.get()), (0, 0));
    }

    #[test]
    fn all_bodies_of_a_core_share_its_room_and_give_it_back() {
        let (held, cores) = (Held::default(), 4);
        let share = limits::CAPTURED_BYTES_MAX / cores;
        held.set(share - 2);
        let (mut first, mut second) = (body(100, &held), body(100, &held));
        first.push(b"abc", cores);
        second.push(b"abc", cores);
        assert_eq!((first.bytes.len(), second.bytes.len()), (2, 0));
        drop(first);
        second.push(b"def", cores);
        assert!(second.bytes.is_empty(), "a beginning without its first bytes is none");
        drop(second);
        assert_eq!(held.get(), share - 2);
    }

    #[test]
    fn header_values_are_found_in_the_head_that_left() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nAge:1 \r\nX: \r\n\r\nAge: 9";
        let capture = Capture { response_head: head.to_vec(), ..Capture::default() };
        assert_eq!(capture.response_header(b"content-type"), Some(&b"a/b"[..]));
        assert_eq!(capture.response_header(b"age"), Some(&b"1"[..]));
        assert_eq!(capture.response_header(b"x"), Some(&b""[..]));
        assert_eq!(capture.response_header(b"http/1.1 200 ok"), None);
        assert_eq!(capture.response_header(b"missing"), None);
    }
}
