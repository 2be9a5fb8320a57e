//! The families of the metrics page that are about TLS.

use std::io;
use std::time::Duration;

use crate::telemetry::exposition::{Outlet, Page};
use crate::telemetry::metric_names::{self as names, Metric};
use crate::telemetry::metrics::{Counts, micros};
use crate::tls::refusal::Reason;

/// What the control core knows of TLS at one moment.
#[derive(Clone, Debug, Default)]
pub struct TlsNumbers {
    pub certificates: Vec<Lasting>,
    pub staples: Vec<Lasting>,
    /// By file: seconds until the first of them ends; less than 0: it has.
    pub revocation_lists: Vec<(String, i64)>,
    pub ticket_key_age: Duration,
    /// That were to replace others, since the start.
    pub broken_files: u64,
}

/// How long something about a certificate lasts.
#[derive(Clone, Debug)]
pub struct Lasting {
    /// Its file.
    pub certificate: String,
    pub name: String,
    /// From now; less than 0: it has ended.
    pub seconds: i64,
}

pub(super) async fn write<O: Outlet>(
    numbers: &TlsNumbers,
    merged: &Counts,
    page: &mut Page<O>,
) -> io::Result<()> {
    handshakes(merged, page);
    lasting(names::CERTIFICATE_EXPIRY_SECONDS, &numbers.certificates, page).await?;
    page.plain(names::CERTIFICATE_RELOAD_FAILURES_TOTAL, numbers.broken_files);
    lasting(names::OCSP_STAPLE_EXPIRY_SECONDS, &numbers.staples, page).await?;
    page.header(names::REVOCATION_LIST_EXPIRY_SECONDS);
    for (file, seconds) in &numbers.revocation_lists {
        page.signed(names::REVOCATION_LIST_EXPIRY_SECONDS, &[("file", file)], *seconds);
        page.breathe().await?;
    }
    page.header(names::TICKET_KEY_AGE_SECONDS);
    page.seconds(names::TICKET_KEY_AGE_SECONDS, &[], micros(numbers.ticket_key_age));
    Ok(())
}

fn handshakes<O: Outlet>(merged: &Counts, page: &mut Page<O>) {
    let counted = || Reason::ALL.into_iter().zip(merged.refused);
    let is_handshake = |(reason, _): &(Reason, u64)| *reason != Reason::ProxyHeader;
    let failed = counted().filter(is_handshake).map(|(_, count)| count).sum::<u64>();
    let full = merged.handshakes.saturating_sub(merged.handshakes_resumed);
    page.header(names::TLS_HANDSHAKES_TOTAL);
    let results = [("full", full), ("resumed", merged.handshakes_resumed), ("failed", failed)];
    for (result, count) in results {
        page.sample(names::TLS_HANDSHAKES_TOTAL, &[("result", result)], count);
    }
    page.header(names::TLS_HANDSHAKE_FAILURES_TOTAL);
    for (reason, count) in counted().filter(is_handshake) {
        let labels = [("reason", reason.label())];
        page.sample(names::TLS_HANDSHAKE_FAILURES_TOTAL, &labels, count);
    }
    let headers = counted().filter(|counted| !is_handshake(counted)).map(|(_, count)| count).sum();
    page.plain(names::PROXY_HEADER_FAILURES_TOTAL, headers);
}

async fn lasting<O: Outlet>(metric: Metric, all: &[Lasting], page: &mut Page<O>) -> io::Result<()> {
    page.header(metric);
    for Lasting { certificate, name, seconds } in all {
        let labels = [("certificate", certificate.as_str()), ("name", name.as_str())];
        page.signed(metric, &labels, *seconds);
        page.breathe().await?;
    }
    Ok(())
}
