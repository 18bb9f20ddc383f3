//! Where the last request of a connection was meant to go: mostly the next one names the same host.

use std::net::SocketAddr;

use crate::tables::{Generation, Tables, Target};

/// Longest Host that is remembered, bytes; a longer one is looked up each time.
const AUTHORITY_BYTES_MAX: usize = 64;

/// Memo of [`Tables::resolve_http`] for one connection, whose original destination never changes.
#[derive(Debug)]
pub(super) struct LastTarget {
    of: Option<(Generation, Target)>,
    /// As it was sent.
    authority: [u8; AUTHORITY_BYTES_MAX],
    authority_len: usize,
}

impl Default for LastTarget {
    fn default() -> Self {
        Self {
            of: None,
            authority: [0; AUTHORITY_BYTES_MAX],
            authority_len: 0,
        }
    }
}

impl LastTarget {
    /// Where a request to `authority` was meant to go.
    pub(super) fn resolve(
        &mut self,
        tables: &Tables,
        authority: &str,
        original_dst: Option<SocketAddr>,
    ) -> Target {
        if let Some((generation, target)) = self.of
            && generation == tables.generation()
            && self.authority[..self.authority_len] == *authority.as_bytes()
        {
            return target;
        }
        let target = tables.resolve_http(authority, original_dst);
        if let Some(room) = self.authority.get_mut(..authority.len()) {
            room.copy_from_slice(authority.as_bytes());
            self.authority_len = authority.len();
            self.of = Some((tables.generation(), target));
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::testing::Draft;

    #[test]
    fn it_says_what_the_tables_say_whatever_came_before() {
        let long = format!("{}.example", "a".repeat(AUTHORITY_BYTES_MAX));
        let asked = [
            "a", "a:80", "A", "b", &long, "", "b:99", "nobody", &long, "a",
        ];
        let one = Draft::new().service("a", &[80]);
        let two = Draft::new().service("b", &[80]).service("a", &[80]);
        let all = [one.tables(), two.tables()];
        let mut last = LastTarget::default();
        for tables in [&all[0], &all[1], &all[0]] {
            for authority in asked.iter().flat_map(|authority| [authority, authority]) {
                assert_eq!(
                    last.resolve(tables, authority, None),
                    tables.resolve_http(authority, None),
                    "{authority}"
                );
            }
        }
    }
}
