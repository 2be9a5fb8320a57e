//! `[admin]` and `[health]` as written. Read by [`super::document`].

use serde::Serialize;

use super::address::host_name;
use super::document::Port;
use super::read::{At, Section};
use super::secret::Token;
use super::value::boolean;

#[derive(Clone, Debug, Serialize)]
pub struct Admin {
    #[serde(flatten)]
    pub port: Port,
    pub hosts: Vec<At<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<Token>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Health {
    pub on_listeners: At<bool>,
    pub listener_details: At<bool>,
    pub grpc: At<bool>,
}

impl Admin {
    pub(super) fn read(mut section: Section<'_>) -> Admin {
        let admin = Admin {
            port: Port::read(&mut section, ADMIN_PORT),
            hosts: section.list("hosts", host_name),
            tokens: section.sections("tokens").into_iter().filter_map(Token::read).collect(),
        };
        section.finish();
        admin
    }
}

impl Health {
    pub(super) fn read(mut section: Section<'_>) -> Health {
        let health = Health {
            on_listeners: section.value_or("on_listeners", false, boolean),
            listener_details: section.value_or("listener_details", false, boolean),
            grpc: section.value_or("grpc", false, boolean),
        };
        section.finish();
        health
    }
}

const ADMIN_PORT: u16 = 9091;
