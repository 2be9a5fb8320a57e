//! Single values: how each type is written in a configuration, read from it and printed again.
//! Pure functions; what is wrong comes back as words, the reader adds the place.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use toml::Value;
use toml::de::DeValue;

use super::error::Wrong;
use crate::limits;
pub use crate::plan::ClusterProtocol;
use crate::plan::{AccessLogFormat, Address, Balance, LocationPart, Network, OnFull, Role};

/// A value as it is written in a configuration, for `print-config`.
pub trait Written {
    fn written(&self) -> Value;
}

/// A length of time: `"30s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A number of bytes: `"10MB"` or `8192`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerProtocol {
    Http,
}

/// Where a redirect leads: the text with its placeholders found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub text: String,
    pub parts: Vec<LocationPart>,
}

// --- names of closed sets --------------------------------------------------------------------

pub(super) type Names<T> = &'static [(&'static str, T)];

pub(super) const LISTENER_PROTOCOLS: Names<ListenerProtocol> = &[("http", ListenerProtocol::Http)];
pub(super) const CLUSTER_PROTOCOLS: Names<ClusterProtocol> = &[
    ("h1", ClusterProtocol::H1),
    ("h2", ClusterProtocol::H2),
    ("h2c", ClusterProtocol::H2c),
    ("auto", ClusterProtocol::Auto),
];
pub(super) const BALANCES: Names<Balance> =
    &[("round_robin", Balance::RoundRobin), ("weighted_round_robin", Balance::WeightedRoundRobin)];
pub(super) const FORMATS: Names<AccessLogFormat> = &[
    ("json", AccessLogFormat::Json),
    ("clf", AccessLogFormat::Clf),
    ("combined", AccessLogFormat::Combined),
    ("text", AccessLogFormat::Text),
    ("template", AccessLogFormat::Template),
];
pub(super) const ROLES: Names<Role> =
    &[("viewer", Role::Viewer), ("operator", Role::Operator), ("admin", Role::Admin)];
pub(super) const ON_FULL: Names<OnFull> = &[("drop", OnFull::Drop), ("block", OnFull::Block)];
pub(super) const LEVELS: Names<LevelFilter> = &[
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
    // What others call it. Nothing of ours is told at a level of its own above errors.
    ("fatal", LevelFilter::Error),
];

/// One of a closed set of names; `what` is its noun.
pub(super) fn choice<T: Copy>(
    what: &'static str,
    names: Names<T>,
) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let given = string(value)?;
        match names.iter().find(|(name, _)| *name == given) {
            Some((_, found)) => Ok(*found),
            None => {
                let all: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
                let wrong = Wrong::new(format!("there is no {what} `{given}`"));
                Err(match all.as_slice() {
                    // nothing else can have been meant, and "https" was not meant as "http"
                    [only] => wrong.note(format!("expected `{only}`, the only one so far")),
                    _ => wrong.choices("expected one of", given, &all),
                })
            }
        }
    }
}

pub(super) fn written_name<T: Copy + PartialEq>(names: Names<T>, value: T) -> Value {
    let found = names.iter().find(|(_, one)| *one == value);
    let (name, _) = found.expect("every variant has a name in its table");
    Value::String((*name).to_owned())
}

// --- plain types -----------------------------------------------------------------------------

/// A value's type with its article, for messages.
pub(super) fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

pub(super) fn string<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Wrong> {
    value.as_str().ok_or_else(|| {
        let wrong = Wrong::of_type(format!("expected a string, found {}", found(value)));
        match value {
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => wrong.note("write it in quotes"),
            DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_) => wrong,
        }
    })
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, Wrong> {
    Ok(string(value)?.to_owned())
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| {
        Wrong::of_type(format!("expected `true` or `false` (no quotes), found {}", found(value)))
    })
}

pub(super) fn integer<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let Some(written) = value.as_integer() else {
            return Err(Wrong::of_type(format!("expected an integer, found {}", found(value))));
        };
        u64::from_str_radix(written.as_str(), written.radix())
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                let (least, most) = (range.start(), range.end());
                Wrong::new(format!("{written} is out of range"))
                    .note(format!("expected an integer from {least} to {most}"))
            })
    }
}

/// From 0 to 1: `0.1` is a tenth.
pub(super) fn share(value: &DeValue<'_>) -> Result<f64, Wrong> {
    let number = match value {
        DeValue::Float(written) => written.as_str().parse().ok(),
        DeValue::Integer(written) => written.as_str().parse().ok(),
        DeValue::String(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            return Err(Wrong::new(format!("expected a number, found {}", found(value))));
        }
    };
    number.filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| {
        Wrong::new("this is no share").note("expected a number from 0 to 1, such as 0.1")
    })
}

/// A label of ours: it appears in metrics and logs, so it stays plain.
pub(super) fn name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = string(value)?;
    check_name(given)?;
    Ok(given.to_owned())
}

pub(super) fn check_name(given: &str) -> Result<(), Wrong> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=64).contains(&given.len()) && given.bytes().all(plain) {
        return Ok(());
    }
    Err(Wrong::new(format!("`{given}` cannot be a name"))
        .note("expected 1 to 64 letters, digits, `-`, `_` or `.`"))
}

/// A pseudonym in `Via` and `X-Proxy-ID`: a token (RFC 9110 §5.6.2).
pub(super) fn proxy_id(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = string(value)?;
    if given.len() <= 64 && is_token(given) {
        return Ok(given.to_owned());
    }
    Err(Wrong::new(format!("`{given}` cannot be a proxy id"))
        .note("expected 1 to 64 characters of a header token: letters, digits, `-`, `.`, `_`"))
}

/// A user or a group: its name or its number.
pub(super) fn account(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = string(value)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.$".contains(&b);
    if (1..=32).contains(&given.len()) && given.bytes().all(plain) && !given.starts_with('-') {
        return Ok(given.to_owned());
    }
    Err(Wrong::new(format!("`{given}` cannot be the name of a user or group"))
        .note("expected a name such as \"corelane\", or a number such as \"990\""))
}

pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let given = string(value)?;
    if given.is_empty() || given.contains('\0') {
        return Err(Wrong::new("this cannot be the name of a file")
            .note("expected a path; leave the key out to write to standard output"));
    }
    Ok(PathBuf::from(given))
}

// --- units -----------------------------------------------------------------------------------

/// Units of time, largest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A length of time above zero.
pub(super) fn time(value: &DeValue<'_>) -> Result<Time, Wrong> {
    match time_or_none(value)? {
        Time(Duration::ZERO) => Err(Wrong::new("this cannot be zero").note(TIME_EXPECTED)),
        time => Ok(time),
    }
}

const TIME_EXPECTED: &str = "expected a duration such as \"250ms\", \"30s\", \"2m\" or \"1h\"";

/// A length of time; zero where the key gives that a meaning.
pub(super) fn time_or_none(value: &DeValue<'_>) -> Result<Time, Wrong> {
    time_within(value, limits::CONFIG_TIME_MAX)
}

/// An age: longer than anything that a request may take.
pub(super) fn days(value: &DeValue<'_>) -> Result<Time, Wrong> {
    match time_within(value, limits::CONFIG_AGE_MAX)? {
        Time(Duration::ZERO) => {
            Err(Wrong::new("this cannot be zero").note("expected an age such as \"7d\" or \"12h\""))
        }
        age => Ok(age),
    }
}

fn time_within(value: &DeValue<'_>, max: Duration) -> Result<Time, Wrong> {
    if let Some(number) = value.as_integer() {
        return Err(Wrong::new(format!("{number} has no unit"))
            .note(TIME_EXPECTED)
            .note(format!("did you mean `\"{number}s\"`?")));
    }
    let given = string(value)?;
    let digits = given.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = given.split_at(digits);
    let unit = TIME_UNITS.iter().find(|(name, _)| *name == unit);
    let millis = match (number.parse::<u64>(), unit) {
        (Ok(0), _) if given == "0" => Some(0),
        (Ok(number), Some((_, factor))) => number.checked_mul(*factor),
        (Ok(_) | Err(_), _) => {
            return Err(Wrong::new(format!("`{given}` is not a duration")).note(TIME_EXPECTED));
        }
    };
    match millis.map(Duration::from_millis).filter(|time| *time <= max) {
        Some(time) => Ok(Time(time)),
        None => Err(Wrong::new(format!("`{given}` is too long"))
            .note(format!("expected at most \"{}\"", written_time(max)))),
    }
}

fn written_time(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let fits = |(_, factor): &&(&str, u64)| millis.is_multiple_of(*factor);
    match TIME_UNITS.iter().find(fits) {
        Some((_, _)) if millis == 0 => "0s".to_owned(),
        Some((_, factor)) if millis == *factor && *factor > 3_600_000 => "24h".to_owned(),
        // "60s" and "120s" read better than "1m" and "2m" beside their neighbours in seconds
        Some((_, factor)) if *factor > 1000 && millis < 600_000 => format!("{}s", millis / 1000),
        Some((unit, factor)) => format!("{}{unit}", millis / factor),
        None => format!("{millis}ms"),
    }
}

/// Powers of 1024 with and without the `i`, as other proxies read them.
const BYTE_UNITS: [(&str, u64); 7] = [
    ("GB", 1 << 30),
    ("GiB", 1 << 30),
    ("MB", 1 << 20),
    ("MiB", 1 << 20),
    ("KB", 1 << 10),
    ("KiB", 1 << 10),
    ("B", 1),
];

pub(super) fn bytes(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<Bytes, Wrong> {
    move |value| {
        let number = match value {
            DeValue::Integer(written) => {
                u64::from_str_radix(written.as_str(), written.radix()).ok()
            }
            DeValue::String(given) => Some(bytes_of(given)?),
            DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                return Err(Wrong::new(format!("expected a size, found {}", found(value)))
                    .note(BYTES_EXPECTED));
            }
        };
        number.filter(|number| range.contains(number)).map(Bytes).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            Wrong::new("this size is out of range")
                .note(format!("expected from {least} to {most} bytes"))
        })
    }
}

const BYTES_EXPECTED: &str = "expected bytes as a number, or a size such as \"64KiB\" or \"10MB\"";

fn bytes_of(given: &str) -> Result<u64, Wrong> {
    let digits = given.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = given.split_at(digits);
    let unit = BYTE_UNITS.iter().find(|(name, _)| *name == unit.trim_start_matches(' '));
    match (number.parse::<u64>(), unit) {
        // what overflows is out of every range
        (Ok(number), Some((_, factor))) => Ok(number.saturating_mul(*factor)),
        (Ok(_) | Err(_), _) => {
            Err(Wrong::new(format!("`{given}` is not a size")).note(BYTES_EXPECTED))
        }
    }
}

// --- headers ---------------------------------------------------------------------------------

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(tchar)
}

/// What belongs to one connection (RFC 9110 §7.6.1) or frames the message (RFC 9112 §6): the
/// proxy writes these itself, and a configuration that did would split or smuggle.
const REFUSED_NAMES: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn header_name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = string(value)?;
    check_header_name(given)?;
    Ok(given.to_owned())
}

/// Of a header that a log shows or hides: any name that a message can have.
pub(super) fn logged_header(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = string(value)?;
    if is_token(given) {
        return Ok(given.to_owned());
    }
    Err(Wrong::new(format!("`{given}` cannot be a header name"))
        .note("expected letters, digits and `-`"))
}

pub(super) fn check_header_name(given: &str) -> Result<(), Wrong> {
    if !is_token(given) {
        return Err(Wrong::new(format!("`{given}` cannot be a header name"))
            .note("expected letters, digits and `-`"));
    }
    if REFUSED_NAMES.contains(&given.to_ascii_lowercase().as_str()) {
        return Err(Wrong::new(format!("`{given}` is written by the proxy itself"))
            .note("headers of the connection and of message framing cannot be changed"));
    }
    Ok(())
}

/// Visible text, spaces and tabs inside (RFC 9110 §5.5).
pub(super) fn header_value(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = string(value)?;
    if given.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        return Err(Wrong::new("a header value cannot contain control characters")
            .note("expected one line of text"));
    }
    if given.trim_matches([' ', '\t']) != given {
        return Err(Wrong::new("a header value cannot begin or end with a space"));
    }
    Ok(given.to_owned())
}

pub(super) fn content_type(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = header_value(value)?;
    let type_and_rest = given.split_once('/').map(|(kind, rest)| {
        (kind, rest.split_once(';').map_or(rest, |(subtype, _)| subtype).trim_end())
    });
    match type_and_rest {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) => Ok(given),
        Some(_) | None => Err(Wrong::new(format!("`{given}` is not a content type"))
            .note("expected a type such as \"text/plain; charset=utf-8\"")),
    }
}

/// A URI reference with `{host}`, `{path}` and `{query}` in it.
pub(super) fn location(value: &DeValue<'_>) -> Result<Location, Wrong> {
    let given = string(value)?;
    if given.is_empty() || !given.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Wrong::new("this cannot be a location")
            .note("expected a URL such as \"https://{host}{path}{query}\", without spaces"));
    }
    let mut parts = Vec::new();
    let mut rest = given;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        if !before.is_empty() {
            parts.push(LocationPart::Text(before.into()));
        }
        let inside = from.strip_prefix('{').and_then(|open| open.split_once('}'));
        let Some((word, after)) = inside else {
            return Err(Wrong::new(format!("`{given}` has a brace without its other half"))
                .note("write a literal brace as %7B or %7D"));
        };
        let Some((_, part)) = PLACEHOLDERS.iter().find(|(name, _)| *name == word) else {
            let names = PLACEHOLDERS.map(|(name, _)| name);
            return Err(Wrong::new(format!("there is no placeholder `{{{word}}}`")).choices(
                "placeholders are",
                word,
                &names,
            ));
        };
        if word == "query" && given[..given.len() - from.len()].ends_with('?') {
            return Err(Wrong::new("`{query}` brings its own `?`, when there is a query")
                .note("expected \"https://{host}{path}{query}\""));
        }
        parts.push(part.clone());
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(LocationPart::Text(rest.into()));
    }
    Ok(Location { text: given.to_owned(), parts })
}

const PLACEHOLDERS: [(&str, LocationPart); 3] =
    [("host", LocationPart::Host), ("path", LocationPart::Path), ("query", LocationPart::Query)];

// --- printing --------------------------------------------------------------------------------

impl Written for Time {
    fn written(&self) -> Value {
        Value::String(written_time(self.0))
    }
}

impl Written for Bytes {
    fn written(&self) -> Value {
        let whole =
            |(_, factor): &&(&str, u64)| self.0 >= *factor && self.0.is_multiple_of(*factor);
        match BYTE_UNITS.iter().filter(|(_, factor)| *factor >= 1 << 20).find(whole) {
            Some((unit, factor)) => Value::String(format!("{}{unit}", self.0 / factor)),
            None => number(self.0),
        }
    }
}

fn number(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Written for usize {
    fn written(&self) -> Value {
        number(*self as u64)
    }
}

impl Written for u32 {
    fn written(&self) -> Value {
        number(u64::from(*self))
    }
}

impl Written for u16 {
    fn written(&self) -> Value {
        number(u64::from(*self))
    }
}

impl Written for bool {
    fn written(&self) -> Value {
        Value::Boolean(*self)
    }
}

impl Written for String {
    fn written(&self) -> Value {
        Value::String(self.clone())
    }
}

impl Written for PathBuf {
    fn written(&self) -> Value {
        Value::String(self.to_string_lossy().into_owned())
    }
}

impl Written for SocketAddr {
    fn written(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Written for Address {
    fn written(&self) -> Value {
        match self {
            Address::Ip(address) => address.written(),
            Address::Name(name, port) => Value::String(format!("{name}:{port}")),
        }
    }
}

impl Written for Network {
    fn written(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Written for Location {
    fn written(&self) -> Value {
        Value::String(self.text.clone())
    }
}

impl Written for ListenerProtocol {
    fn written(&self) -> Value {
        written_name(LISTENER_PROTOCOLS, *self)
    }
}

impl Written for ClusterProtocol {
    fn written(&self) -> Value {
        written_name(CLUSTER_PROTOCOLS, *self)
    }
}

impl Written for Balance {
    fn written(&self) -> Value {
        written_name(BALANCES, *self)
    }
}

impl Written for Role {
    fn written(&self) -> Value {
        written_name(ROLES, *self)
    }
}

impl Written for AccessLogFormat {
    fn written(&self) -> Value {
        written_name(FORMATS, *self)
    }
}

impl Written for OnFull {
    fn written(&self) -> Value {
        written_name(ON_FULL, *self)
    }
}

impl Written for f64 {
    fn written(&self) -> Value {
        Value::Float(*self)
    }
}

impl Written for LevelFilter {
    fn written(&self) -> Value {
        written_name(LEVELS, *self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(text: &str, parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>) -> Result<T, String> {
        let value = DeValue::parse(text).expect("the test is TOML");
        parse(value.get_ref()).map_err(|wrong| wrong.message)
    }

    #[test]
    fn durations_have_one_unit_and_print_as_they_read() {
        let cases = [("250ms", 250), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000)];
        for (text, millis) in cases {
            let time = read(&format!("\"{text}\""), time).unwrap();
            assert_eq!(time.0, Duration::from_millis(millis));
            let again = time.written().to_string();
            assert_eq!(read(&again, super::time), Ok(time), "{again}");
        }
        for wrong in
            ["", "s", "30", "1.5s", "1 h", "1h30m", "-1s", "+1s", "1S", "99999999999999999h"]
        {
            assert!(read(&format!("\"{wrong}\""), time).is_err(), "{wrong}");
        }
        assert!(read("\"0s\"", time).is_err());
        assert_eq!(read("\"0s\"", time_or_none), Ok(Time(Duration::ZERO)));
        assert!(read("\"24h\"", time).is_ok());
        assert!(read("\"86400001ms\"", time).is_err());
    }

    #[test]
    fn sizes_are_powers_of_1024_and_never_wrap() {
        let any = || bytes(0..=u64::MAX);
        assert_eq!(read("\"10MB\"", any()), Ok(Bytes(10 << 20)));
        assert_eq!(read("\"64KiB\"", any()), Ok(Bytes(64 << 10)));
        assert_eq!(read("0x10", any()), Ok(Bytes(16)));
        assert_eq!(read("\"99999999999GB\"", any()), Ok(Bytes(u64::MAX)));
        for wrong in ["", "MB", "10mb", "1.5MB", "-1B", "10"] {
            assert!(read(&format!("\"{wrong}\""), any()).is_err(), "{wrong}");
        }
        for size in [0, 1, 1023, 8192, 1 << 20, (1 << 20) + 1, 5 << 30] {
            let again = Bytes(size).written().to_string();
            assert_eq!(read(&again, any()), Ok(Bytes(size)), "{again}");
        }
    }

    #[test]
    fn every_header_that_would_change_framing_or_the_connection_is_refused() {
        for name in REFUSED_NAMES {
            assert!(check_header_name(name).is_err(), "{name}");
            assert!(check_header_name(&name.to_ascii_uppercase()).is_err(), "{name}");
        }
        for name in ["", "a b", "a:", "a\r\n", "\u{e9}", "(a)"] {
            assert!(check_header_name(name).is_err(), "{name:?}");
        }
        assert!(check_header_name("X-Env").is_ok());
        for value in ["\"a\\r\\nb\"", "\"a\\u0000\"", "\"\\u007F\"", "\" a\"", "\"a\\t\""] {
            assert!(read(value, header_value).is_err(), "{value}");
        }
        assert_eq!(read("\"a\\tb; c\"", header_value), Ok("a\tb; c".to_owned()));
    }

    #[test]
    fn locations_are_split_at_their_placeholders() {
        let parts = |text: &str| read(&format!("'{text}'"), location).map(|found| found.parts);
        assert_eq!(
            parts("https://{host}/x{path}"),
            Ok(vec![
                LocationPart::Text(b"https://".to_vec()),
                LocationPart::Host,
                LocationPart::Text(b"/x".to_vec()),
                LocationPart::Path,
            ])
        );
        for wrong in ["", "a b", "{", "}", "{host", "host}", "{}", "{{host}}", "{Host}", "/\u{e9}"]
        {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }
}
