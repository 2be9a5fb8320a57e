//! Header names that the proxy knows, and header changes compiled from configuration.

/// Headers that code looks at. Everything else is `Other` and passes untouched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderId {
    #[default]
    Other,
    Connection,
    ContentLength,
    Date,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XProxyId,
    XRealIp,
    XRequestId,
}

/// Changes to a head: removals first, then sets (which replace every line of that name), then additions.
/// Compiled from `request_headers` and `response_headers` of a route; names and values are valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Lower case.
    pub remove: Vec<Box<[u8]>>,
    pub set: Vec<(Box<[u8]>, Box<[u8]>)>,
    pub add: Vec<(Box<[u8]>, Box<[u8]>)>,
}

impl HeaderEdits {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}
