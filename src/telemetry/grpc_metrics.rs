//! The families of gRPC on the metrics page: calls by code, and messages, of every route, service
//! and method that the configuration names. What it does not name is `other`.

use std::io;
use std::rc::Rc;

use crate::grpc::status::Code;
use crate::shard::series::{GrpcCells, MessageCells};
use crate::telemetry::exposition::{Outlet, Page};
use crate::telemetry::metric_names::{self as names, Metric};
use crate::telemetry::metrics::{Named, OTHER};

pub(super) async fn write<O: Outlet>(
    calls: &[Rc<Named<GrpcCells>>],
    page: &mut Page<O>,
) -> io::Result<()> {
    page.header(names::GRPC_REQUESTS_TOTAL);
    for named in calls {
        for code in Code::ALL {
            let count = named.sum(|cells| &cells.codes[usize::from(code.number())]);
            // Those that happen always, so that the first failure shows as an increase.
            if count > 0 || matches!(code, Code::Ok | Code::Unavailable) {
                sample(names::GRPC_REQUESTS_TOTAL, named, ("code", code.label()), count, page);
            }
        }
        page.breathe().await?;
    }
    messages(names::GRPC_MESSAGES_RECEIVED_TOTAL, calls, |cells| &cells.received, page).await?;
    messages(names::GRPC_MESSAGES_SENT_TOTAL, calls, |cells| &cells.sent, page).await
}

/// Of one direction.
async fn messages<O: Outlet>(
    metric: Metric,
    calls: &[Rc<Named<GrpcCells>>],
    of: impl Fn(&GrpcCells) -> &MessageCells,
    page: &mut Page<O>,
) -> io::Result<()> {
    page.header(metric);
    for named in calls {
        let plain = named.sum(|cells| &of(cells).plain);
        sample(metric, named, ("compressed", "false"), plain, page);
        let compressed = named.sum(|cells| &of(cells).compressed);
        sample(metric, named, ("compressed", "true"), compressed, page);
        page.breathe().await?;
    }
    Ok(())
}

fn sample<O: Outlet>(
    metric: Metric,
    named: &Named<GrpcCells>,
    label: (&str, &str),
    count: u64,
    page: &mut Page<O>,
) {
    let [route, service, method] = parts(&named.labels[0].1);
    let labels = [("route", route), ("service", service), ("method", method), label];
    page.sample(metric, &labels, count);
}

/// Of a route's name, which has those of its service and method behind slashes.
fn parts(name: &str) -> [&str; 3] {
    let mut parts = name.split('/');
    let mut next = || parts.next().filter(|part| *part != "*").unwrap_or(OTHER);
    [next(), next(), next()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_are_in_the_name_and_what_is_not_named_is_other() {
        assert_eq!(parts("api/my.Users/Find"), ["api", "my.Users", "Find"]);
        assert_eq!(parts("api/my.Users/*"), ["api", "my.Users", "other"]);
        assert_eq!(parts("api"), ["api", "other", "other"]);
        assert_eq!(parts("other"), ["other"; 3]);
    }
}
