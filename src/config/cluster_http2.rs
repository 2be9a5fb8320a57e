//! `clusters.NAME.http2`: how HTTP/2 is spoken to endpoints, and whether `protocol` can be what it
//! says.

use serde::Serialize;
use std::time::Duration;

use super::document::{Bytes, Cluster, ClusterProtocol, Document, Time};
use super::error::{Problem, Wrong};
use super::keys::Fallback::Is;
use super::keys::{Key, key};
use super::read::{At, Section};
use super::value::{bytes, integer, time, time_or_none};
use crate::{limits, plan};

pub(super) const CLUSTER_HTTP2: &[Key] = &[
    key(
        "clusters.NAME.http2.max_concurrent_streams",
        "integer",
        Is("100"),
        "protocol = \"h2c\"\nhttp2 = { max_concurrent_streams = 250 }",
        "most exchanges on one HTTP/2 connection; an endpoint may allow fewer",
    ),
    key(
        "clusters.NAME.http2.initial_window_size",
        "size",
        Is("262144"),
        "protocol = \"h2c\"\nhttp2 = { initial_window_size = \"1MiB\" }",
        "most bytes of one response that are on their way while its client takes none",
    ),
    key(
        "clusters.NAME.http2.keepalive_interval",
        "duration",
        Is("\"0s\""),
        "protocol = \"h2c\"\nhttp2 = { keepalive_interval = \"30s\" }",
        "how often a connection in use is asked by PING whether it lives; 0s: after a timeout only",
    ),
    key(
        "clusters.NAME.http2.keepalive_timeout",
        "duration",
        Is("\"10s\""),
        "protocol = \"h2c\"\nhttp2 = { keepalive_timeout = \"2s\" }",
        "how long the answer to a PING may take; then the connection is given up",
    ),
];

#[derive(Clone, Debug, Serialize)]
pub struct ClusterHttp2 {
    pub max_concurrent_streams: At<u32>,
    pub initial_window_size: At<Bytes>,
    /// 0: never without a reason.
    pub keepalive_interval: At<Time>,
    pub keepalive_timeout: At<Time>,
}

impl ClusterHttp2 {
    pub(super) fn read(cluster: &mut Section<'_>) -> Option<ClusterHttp2> {
        let mut section = cluster.optional_section("http2")?;
        let http2 = ClusterHttp2 {
            max_concurrent_streams: section.value_or(
                "max_concurrent_streams",
                limits::UPSTREAM_STREAMS,
                integer(1..=u64::from(limits::UPSTREAM_STREAMS_CEILING)),
            ),
            initial_window_size: section.value_or(
                "initial_window_size",
                Bytes(u64::from(limits::UPSTREAM_STREAM_WINDOW)),
                bytes(WINDOW_LEAST..=u64::from(limits::UPSTREAM_STREAM_WINDOW_CEILING)),
            ),
            keepalive_interval: section.value_or(
                "keepalive_interval",
                Time(Duration::ZERO),
                time_or_none,
            ),
            keepalive_timeout: section.value_or(
                "keepalive_timeout",
                Time(limits::UPSTREAM_PING_TIMEOUT),
                time,
            ),
        };
        section.finish();
        Some(http2)
    }

    pub(super) fn compile(&self) -> plan::ClusterHttp2 {
        plan::ClusterHttp2 {
            streams_max: self.max_concurrent_streams.value,
            window: u32::try_from(self.initial_window_size.value.0).unwrap_or(u32::MAX),
            keepalive_interval: Some(self.keepalive_interval.value.0).filter(|i| !i.is_zero()),
            keepalive_timeout: self.keepalive_timeout.value.0,
        }
    }
}

/// A smaller one could not hold a frame of the size that every peer may send.
const WINDOW_LEAST: u64 = 16 * 1024;

/// A connection is one core's: where there are fewer, cores take turns.
pub(super) fn warn(document: &Document, cores: usize, warnings: &mut Vec<Problem>) {
    for cluster in &document.clusters {
        let most = &cluster.pool.max_connections;
        let is_shared = match cluster.protocol.value {
            ClusterProtocol::H2 | ClusterProtocol::H2c => true,
            ClusterProtocol::Auto => cluster.tls.is_some(),
            ClusterProtocol::H1 => false,
        };
        if !is_shared || most.value == 0 || most.value as usize >= cores {
            continue;
        }
        let wrong = Wrong::new(format!(
            "an endpoint of HTTP/2 has at most {}, and each of {cores} cores needs one of its own",
            most.value
        ))
        .note("cores take turns: while streams of one last, requests of another wait, and get 503")
        .note(format!("expected at least {cores}, 0, or fewer `cores`"));
        let key = format!("clusters.{}.pool.max_connections", cluster.name.value);
        warnings.push(Problem { offset: most.offset, key, wrong });
    }
}

/// Whether what is to be spoken fits what it is spoken on.
pub(super) fn check(cluster: &Cluster, section: &Section<'_>) {
    let protocol = &cluster.protocol;
    let wrong = match (protocol.value, &cluster.tls) {
        (ClusterProtocol::H2, None) => Wrong::new("h2 is HTTP/2 over TLS, and there is no `tls`")
            .note("expected `tls = {}` beside it, or `protocol = \"h2c\"` for HTTP/2 without TLS"),
        (ClusterProtocol::H2c, Some(_)) => {
            Wrong::new("h2c is HTTP/2 without TLS, and there is `tls`")
                .note("expected `protocol = \"h2\"` for HTTP/2 over TLS, or no `tls`")
        }
        (ClusterProtocol::H1, _) if cluster.http2.is_some() => {
            let wrong = Wrong::new("nothing here speaks HTTP/2: `protocol` is h1")
                .note("expected `protocol` to be h2, h2c or auto, or no `http2`");
            return section.refuse_key("http2", section.offset_of("http2"), wrong);
        }
        (ClusterProtocol::Auto, None) if cluster.http2.is_some() => {
            let wrong = Wrong::new("nothing here speaks HTTP/2: auto chooses it over TLS alone")
                .note("expected `tls` beside it, or `protocol = \"h2c\"` for HTTP/2 without TLS");
            return section.refuse_key("http2", section.offset_of("http2"), wrong);
        }
        (ClusterProtocol::H1 | ClusterProtocol::Auto, _)
        | (ClusterProtocol::H2, Some(_))
        | (ClusterProtocol::H2c, None) => return,
    };
    section.refuse_key("protocol", protocol.offset, wrong);
}
