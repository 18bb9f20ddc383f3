//! Choosing an endpoint.

use std::net::SocketAddr;

use ringmesh_wire::snapshot::Balance;

use super::cluster::ClusterState;
use super::{EndpointId, Tried};
use crate::reason::Reason;
use crate::tables::ClusterRow;
use crate::time::Mono;

impl ClusterState {
    /// Picks and counts. `current` says that `row` is of the tables in force, so that positions
    /// agree. Returns the position in `row`.
    pub(super) fn pick(
        &mut self,
        row: &ClusterRow,
        current: bool,
        now: Mono,
        random: u64,
        tried: &Tried,
        only: Option<SocketAddr>,
    ) -> Result<(usize, EndpointId), Reason> {
        self.look(now);
        let at = match only {
            Some(address) => self.endpoints.iter().position(|e| e.address == address),
            None if current && tried.is_empty() => self.choose(random),
            None => self.choose_among(random, |address| {
                !tried.contains(address)
                    && (current || row.endpoints.iter().any(|e| e.address == address))
            }),
        };
        // Every one was tried, and a repetition is better than none; but still only one that the
        // caller's tables know.
        let at = at.or_else(|| {
            if only.is_some() || tried.is_empty() {
                return None;
            }
            self.choose_among(random, |address| {
                current || row.endpoints.iter().any(|e| e.address == address)
            })
        });
        let at = at.ok_or_else(|| row.nobody())?;
        let endpoint = self.endpoints.get_mut(at).ok_or_else(|| row.nobody())?;
        let in_row = if current {
            Some(at)
        } else {
            row.endpoints
                .iter()
                .position(|e| e.address == endpoint.address)
        };
        let in_row = in_row.ok_or_else(|| row.nobody())?;
        self.breaker.requests.take()?;
        endpoint.active += 1;
        Ok((in_row, endpoint.id))
    }

    /// The usual way: nothing tried yet, tables in force.
    fn choose(&mut self, random: u64) -> Option<usize> {
        let among = match self.available.as_slice() {
            [] => return None,
            [only] => return Some(*only as usize),
            among => among.len() as u64,
        };
        let (high, low) = (random >> 32, random & 0xffff_ffff);
        let place = match self.balance {
            Balance::RoundRobin if self.weight_ends.is_empty() => {
                self.turn = self.turn.wrapping_add(1);
                self.turn % among
            }
            // Turns over unequal weights: a walk of the golden ratio over the weight line visits
            // every endpoint in proportion and without clumps, with no state per endpoint.
            Balance::RoundRobin => {
                self.turn = self.turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
                self.by_weight(self.turn >> 32)
            }
            Balance::Random => self.draw(high),
            Balance::LeastRequest | Balance::Passthrough => {
                let first = self.draw(high);
                let second = if self.weight_ends.is_empty() {
                    // Two different ones, evenly.
                    let other = (low * (among - 1)) >> 32;
                    other + u64::from(other >= first)
                } else {
                    self.draw(low)
                };
                let active = |place: u64| self.active_at(place);
                if active(second) < active(first) {
                    second
                } else {
                    first
                }
            }
        };
        self.position(place)
    }

    /// A place among the available by weight, from 32 random bits.
    fn draw(&self, random: u64) -> u64 {
        if self.weight_ends.is_empty() {
            (random * self.available.len() as u64) >> 32
        } else {
            self.by_weight(random)
        }
    }

    fn by_weight(&self, random: u64) -> u64 {
        let total = self.weight_ends.last().copied().unwrap_or(0);
        let drawn = ((u128::from(random) * u128::from(total)) >> 32) as u64;
        self.weight_ends.partition_point(|end| *end <= drawn) as u64
    }

    fn position(&self, place: u64) -> Option<usize> {
        let place = usize::try_from(place).ok()?;
        self.available.get(place).map(|at| *at as usize)
    }

    fn active_at(&self, place: u64) -> u32 {
        self.position(place)
            .and_then(|at| self.endpoints.get(at))
            .map_or(u32::MAX, |endpoint| endpoint.active)
    }

    /// The rare way: a retry, or an exchange under older tables. The less active of two, among
    /// those that fit, by a walk over all.
    fn choose_among(&self, random: u64, fits: impl Fn(SocketAddr) -> bool) -> Option<usize> {
        let fitting = || {
            self.available
                .iter()
                .map(|at| *at as usize)
                .filter(|at| self.endpoints.get(*at).is_some_and(|e| fits(e.address)))
        };
        let count = fitting().count() as u64;
        let nth = |random: u64| usize::try_from((random * count) >> 32).unwrap_or(0);
        let first = fitting().nth(nth(random >> 32))?;
        let second = fitting().nth(nth(random & 0xffff_ffff))?;
        let active = |at: usize| self.endpoints.get(at).map_or(u32::MAX, |e| e.active);
        Some(if active(second) < active(first) {
            second
        } else {
            first
        })
    }
}
