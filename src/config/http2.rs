//! `listeners[].http2` as written: what clients that speak HTTP/2 are told (RFC 9113 6.5.2).

use serde::Serialize;

use super::read::{At, Section};
use super::value::{Bytes, boolean, bytes, integer};
use crate::limits;
use crate::plan;

#[derive(Clone, Debug, Serialize)]
pub struct Http2 {
    pub enabled: At<bool>,
    pub max_concurrent_streams: At<u32>,
    pub initial_window_size: At<Bytes>,
    pub max_frame_size: At<Bytes>,
}

impl Http2 {
    pub(super) fn read(listener: &mut Section<'_>) -> Http2 {
        let mut section = listener.section("http2");
        let http2 = Http2 {
            enabled: section.value_or("enabled", true, boolean),
            max_concurrent_streams: section.value_or(
                "max_concurrent_streams",
                100,
                integer(1..=u64::from(limits::H2_STREAMS_CEILING)),
            ),
            initial_window_size: section.value_or(
                "initial_window_size",
                Bytes(65_535),
                bytes(1024..=limits::H2_WINDOW_CEILING),
            ),
            max_frame_size: section.value_or(
                "max_frame_size",
                Bytes(16_384),
                bytes(16_384..=limits::H2_FRAME_CEILING),
            ),
        };
        section.finish();
        http2
    }

    pub(super) fn compile(&self) -> plan::Http2 {
        let small = |bytes: &At<Bytes>| u32::try_from(bytes.value.0).unwrap_or(u32::MAX);
        plan::Http2 {
            enabled: self.enabled.value,
            streams_max: self.max_concurrent_streams.value,
            window_bytes: small(&self.initial_window_size),
            frame_bytes_max: small(&self.max_frame_size),
        }
    }
}
