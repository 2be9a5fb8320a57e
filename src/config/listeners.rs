//! `[[listeners]]` as written. Read by [`super::document`].

use std::net::SocketAddr;

use serde::Serialize;

use super::address::socket_address;
use super::error::Wrong;
use super::http2::Http2;
use super::read::{At, Section};
use super::tls::{ListenerTls, ProxyProtocol};
use super::value::{LISTENER_PROTOCOLS, ListenerProtocol, choice, name};

#[derive(Clone, Debug, Serialize)]
pub struct Listener {
    pub name: At<String>,
    pub bind: At<SocketAddr>,
    pub protocol: At<ListenerProtocol>,
    pub http2: Http2,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// `listeners[0]`, for messages.
    #[serde(skip)]
    pub(super) key: String,
}

impl Listener {
    pub(super) fn read_all(root: &mut Section<'_>) -> Vec<Listener> {
        let expected = "at least one `[[listeners]]` with a name and a bind address";
        if !root.has("listeners") {
            root.missing("listeners", expected);
        }
        let listeners = root.sections("listeners").into_iter().filter_map(Listener::read).collect();
        if root.is_empty_list("listeners") {
            let wrong = Wrong::new("there are no listeners").note(format!("expected {expected}"));
            root.refuse_key("listeners", root.offset_of("listeners"), wrong);
        }
        listeners
    }

    fn read(mut section: Section<'_>) -> Option<Listener> {
        let given = section.required("name", "a name, such as \"edge\"", name);
        let bind = section.required("bind", "an address, such as \"0.0.0.0:8080\"", socket_address);
        let protocol = section.value_or(
            "protocol",
            ListenerProtocol::Http,
            choice("listener protocol", LISTENER_PROTOCOLS),
        );
        let http2 = Http2::read(&mut section);
        let proxy_protocol = ProxyProtocol::read(&mut section);
        let tls = ListenerTls::read(&mut section);
        let key = section.path.clone();
        section.finish();
        Some(Listener { name: given?, bind: bind?, protocol, http2, proxy_protocol, tls, key })
    }
}
