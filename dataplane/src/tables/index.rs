//! Dense indices, one type each.

macro_rules! indices {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) u32);

        impl $name {
            /// As an array position.
            #[must_use]
            pub fn at(self) -> usize {
                self.0 as usize
            }

            /// Of an array position; snapshots are bounded far below 2^32 rows.
            #[allow(dead_code, reason = "not every kind of row is counted up here")]
            pub(crate) fn of(at: usize) -> Self {
                Self(u32::try_from(at).unwrap_or(u32::MAX))
            }
        }
    )*};
}

indices! {
    /// A service of one [`super::Tables`].
    ServiceIndex,
    /// A cluster: service x port x subset.
    ClusterIndex,
    /// An HTTP route.
    RouteIndex,
    /// A virtual host.
    VirtualHostIndex,
    /// A quota rule.
    QuotaIndex,
}

impl RouteIndex {
    /// The route of services that have no virtual host: mesh timeout, default retries.
    pub const DEFAULT: Self = Self(0);
}
