//! Virtual addresses: one per service, from its name alone as long as no two names meet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringmesh_wire::ServiceId;
use xxhash_rust::xxh3::xxh3_64;

/// Addresses of a network that are used at most: enough for any mesh, and probing stays short.
const SLOTS_MAX: u128 = 1 << 24;

/// Gives each service an address of `range`: what it held before (if that still fits), else the
/// slot its name hashes to, else the next free one. Services the range has no room for get none.
#[must_use]
pub fn assign_vips<'a>(
    range: (IpAddr, u8),
    services: impl IntoIterator<Item = &'a ServiceId>,
    held: &BTreeMap<ServiceId, IpAddr>,
) -> BTreeMap<ServiceId, IpAddr> {
    let slots = Slots::of(range);
    let wanted: BTreeSet<&ServiceId> = services.into_iter().collect();
    let mut taken = BTreeSet::new();
    let mut given = BTreeMap::new();
    for id in &wanted {
        if let Some(address) = held.get(id)
            && slots.contains(*address)
            && taken.insert(*address)
        {
            given.insert((*id).clone(), *address);
        }
    }
    for id in wanted {
        if given.contains_key(id) {
            continue;
        }
        let first = u128::from(xxh3_64(id.to_string().as_bytes())) % slots.count;
        let free = (0..slots.count)
            .map(|step| slots.address((first + step) % slots.count))
            .find(|address| !taken.contains(address));
        if let Some(address) = free {
            taken.insert(address);
            given.insert(id.clone(), address);
        }
    }
    given
}

/// The usable addresses: without the first and the last of the network.
struct Slots {
    base: u128,
    count: u128,
    v4: bool,
}

impl Slots {
    fn of((address, prefix_bits): (IpAddr, u8)) -> Self {
        let (bits, value, v4) = match address {
            IpAddr::V4(address) => (32, u128::from(u32::from(address)), true),
            IpAddr::V6(address) => (128, u128::from(address), false),
        };
        let host_bits = 128_u32
            .min(bits - u32::from(prefix_bits).min(bits))
            .min(127);
        let size = 1_u128 << host_bits;
        Self {
            base: value & !(size - 1),
            count: size.saturating_sub(2).clamp(1, SLOTS_MAX),
            v4,
        }
    }

    fn address(&self, slot: u128) -> IpAddr {
        let value = self.base + slot + 1;
        match u32::try_from(value) {
            Ok(value) if self.v4 => Ipv4Addr::from(value).into(),
            _ => Ipv6Addr::from(value).into(),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let value = match address {
            IpAddr::V4(address) if self.v4 => u128::from(u32::from(address)),
            IpAddr::V6(address) if !self.v4 => u128::from(address),
            _ => return false,
        };
        value > self.base && value - self.base <= self.count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RANGE: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(240, 240, 0, 0)), 16);

    fn ids(names: &[u16]) -> Vec<ServiceId> {
        names
            .iter()
            .map(|n| ServiceId::new(format!("s{n}"), "default"))
            .collect()
    }

    proptest! {
        #[test]
        fn addresses_are_unique_in_range_and_kept(
            first in prop::collection::vec(any::<u16>(), 0..300),
            more in prop::collection::vec(any::<u16>(), 0..50),
        ) {
            let small = (IpAddr::from([10, 9, 8, 0]), 24);
            for range in [RANGE, small] {
                let before = assign_vips(range, &ids(&first), &BTreeMap::new());
                let distinct: BTreeSet<_> = before.values().collect();
                prop_assert_eq!(distinct.len(), before.len());
                let all: Vec<u16> = first.iter().chain(&more).copied().collect();
                let after = assign_vips(range, &ids(&all), &before);
                for (id, address) in &before {
                    prop_assert_eq!(after.get(id), Some(address));
                }
                prop_assert!(after.values().all(|a| Slots::of(range).contains(*a)));
                let mut wanted = ids(&all);
                wanted.sort();
                wanted.dedup();
                prop_assert_eq!(after.len(), wanted.len().min(Slots::of(range).count as usize));
            }
        }
    }

    #[test]
    fn a_name_keeps_its_address_whoever_else_is_there() {
        let alone = assign_vips(RANGE, &ids(&[7]), &BTreeMap::new());
        let among = assign_vips(RANGE, &ids(&[1, 2, 3, 7, 9]), &BTreeMap::new());
        let id = ServiceId::new("s7", "default");
        assert_eq!(alone[&id], among[&id]);
        let v6 = ("fd00:240::".parse().unwrap(), 64);
        assert!(assign_vips(v6, &ids(&[7]), &BTreeMap::new())[&id].is_ipv6());
    }
}
