//! The name asked for in TLS between sidecars: `p{PORT}.{service}.{namespace}.ringmesh`.

/// Service port, service name and namespace of an SNI; `None` if it is not one of ours.
#[must_use]
pub(super) fn parse(sni: &str) -> Option<(u16, &str, &str)> {
    let rest = sni.strip_suffix(".ringmesh")?;
    let (port, rest) = rest.split_once('.')?;
    let port = port.strip_prefix('p')?.parse().ok()?;
    let (service, namespace) = rest.rsplit_once('.')?;
    (!service.is_empty() && !namespace.is_empty()).then_some((port, service, namespace))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_name_has_port_service_and_namespace() {
        assert_eq!(
            parse("p9080.ratings.default.ringmesh"),
            Some((9080, "ratings", "default"))
        );
        assert_eq!(
            parse("p80.api.example.com.shop.ringmesh"),
            Some((80, "api.example.com", "shop"))
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "ratings",
            "p9080.ringmesh",
            "p9080.x.ringmesh",
            "px.a.b.ringmesh",
            "p99999.a.b.ringmesh",
            "p1..b.ringmesh",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
