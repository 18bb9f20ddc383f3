//! `/metrics` and `/healthz` for machines, on loopback.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::service::Control;
use crate::svid::unix_ms;

/// What is counted elsewhere, read when asked.
#[derive(Debug)]
struct Live(Arc<Control>);

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.0.log().counts();
        let rows = [
            ("stored", "Access-log records written", counts.stored),
            ("gaps", "Access-log records that never arrived", counts.gaps),
            (
                "dropped",
                "Access-log records dropped at sidecars",
                counts.dropped,
            ),
            ("repeated", "Access-log records sent again", counts.repeated),
            (
                "too_long",
                "Access-log records over the bound",
                counts.too_long,
            ),
        ];
        for (name, help, value) in rows {
            let counter = ConstCounter::new(value);
            let name = format!("ringmesh_control_log_records_{name}");
            let line = encoder.encode_descriptor(&name, help, None, counter.metric_type())?;
            counter.encode(line)?;
        }
        let mut line = encoder.encode_descriptor(
            "ringmesh_control_ca_expiry_timestamp_seconds",
            "When the certificates end that sign for the mesh",
            None,
            MetricType::Gauge,
        )?;
        let ends = self.0.issuer().ca().ends();
        for (which, end) in [("root", ends.root), ("intermediate", ends.intermediate)] {
            let seconds = i64::try_from(unix_ms(end) / 1_000).unwrap_or(i64::MAX);
            let labels = [("certificate", which)];
            ConstGauge::new(seconds).encode(line.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Page {
    registry: Arc<Registry>,
}

/// Serves metrics and health until dropped.
///
/// # Errors
/// Where the listener fails for good.
pub async fn serve(control: Arc<Control>, listener: TcpListener) -> std::io::Result<()> {
    let mut registry = Registry::default();
    control.counters().register(&mut registry);
    registry.register_collector(Box::new(Arc::clone(control.series())));
    registry.register_collector(Box::new(Live(control)));
    let page = Page {
        registry: Arc::new(registry),
    };
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(page);
    axum::serve(listener, app).await
}

async fn metrics(State(page): State<Page>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &page.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
