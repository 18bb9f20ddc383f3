//! Bytes nobody should trust: cut short, flipped, made up, with lengths that would not fit memory.

mod samples;

use proptest::prelude::*;
use ringmesh_wire::frame::{self, HEADER_BYTES, Kind};
use ringmesh_wire::limits::FRAME_PAYLOAD_BYTES_MAX;
use ringmesh_wire::{Revision, WireError};
use samples::{decode_frame, decode_payload};

const KINDS: [Kind; 18] = [
    Kind::Hello,
    Kind::Welcome,
    Kind::Reject,
    Kind::Push,
    Kind::Ack,
    Kind::Nack,
    Kind::Register,
    Kind::AppHealth,
    Kind::Enroll,
    Kind::Renew,
    Kind::Issued,
    Kind::LeaseUp,
    Kind::LeaseDown,
    Kind::Report,
    Kind::LogBatch,
    Kind::LogAck,
    Kind::Snapshot,
    Kind::Resolved,
];

#[test]
fn a_frame_cut_anywhere_is_refused() {
    for sample in samples::all() {
        for end in 0..sample.bytes.len() {
            let cut = decode_frame(&sample.bytes[..end]);
            assert_eq!(
                cut,
                Err(WireError::Truncated),
                "{} cut at {end}",
                sample.name
            );
        }
    }
}

#[test]
fn a_payload_cut_anywhere_is_refused_even_where_its_checksum_fits() {
    for sample in samples::all() {
        let (header, payload) = frame::open(&sample.bytes).unwrap();
        for end in 0..payload.len() {
            let cut = decode_payload(header.kind, &payload[..end]);
            assert!(cut.is_err(), "{} payload cut at {end}", sample.name);
        }
    }
}

#[test]
fn one_byte_too_many_is_refused() {
    for sample in samples::all() {
        let mut bytes = sample.bytes.clone();
        bytes.push(0);
        assert_eq!(decode_frame(&bytes), Err(WireError::Trailing { bytes: 1 }));
    }
}

#[test]
fn a_flipped_bit_of_the_payload_fails_the_checksum() {
    for sample in samples::all() {
        for at in HEADER_BYTES..sample.bytes.len() {
            let mut bytes = sample.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            assert_eq!(
                decode_frame(&bytes),
                Err(WireError::Checksum),
                "{} at {at}",
                sample.name
            );
        }
    }
}

#[test]
fn a_flipped_bit_of_the_header_is_refused_or_only_the_revision() {
    for sample in samples::all() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = sample.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let in_revision = (8..16).contains(&(bit / 8));
            let in_kind = bit / 8 == 6;
            let read = decode_frame(&bytes);
            // Another kind may by chance be readable: the checksum guards the payload alone.
            assert!(
                read.is_err() || in_revision || in_kind,
                "{} bit {bit}",
                sample.name
            );
        }
    }
}

#[test]
fn an_announced_length_over_the_limit_is_refused_before_anything_is_read() {
    let mut bytes = frame::seal(Kind::Ack, Revision(1), &[]).unwrap();
    bytes[16..20].copy_from_slice(
        &u32::try_from(FRAME_PAYLOAD_BYTES_MAX + 1)
            .unwrap()
            .to_le_bytes(),
    );
    assert!(matches!(
        frame::open(&bytes),
        Err(WireError::TooLong {
            what: "frame payload",
            ..
        })
    ));
}

/// bincode writes 253 before a 64-bit length. Wherever a length may stand, one that no memory holds
/// must be refused; were it allocated, this test would not end.
#[test]
fn hostile_lengths_inside_are_refused() {
    let mut huge = vec![253];
    huge.extend_from_slice(&u64::MAX.to_le_bytes());
    for sample in samples::all() {
        let (header, payload) = frame::open(&sample.bytes).unwrap();
        for at in 0..payload.len() {
            let mut bytes = payload[..at].to_vec();
            bytes.extend_from_slice(&huge);
            bytes.extend_from_slice(&payload[at..]);
            // No panic, no allocation; by chance a number field may take it.
            let _ = decode_payload(header.kind, &bytes);
        }
    }
}

/// `fuzz/regressions/` holds every input that once broke a decoder.
#[test]
fn what_once_broke_a_decoder_does_so_no_more() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    let mut replayed = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let _ = decode_frame(&bytes);
        for kind in KINDS {
            let _ = decode_payload(kind, &bytes);
        }
        replayed += 1;
    }
    assert!(replayed > 0, "the seeds are there");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode_frame(&bytes);
        for kind in KINDS {
            let _ = decode_payload(kind, &bytes);
        }
    }

    #[test]
    fn damaged_samples_never_panic(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        with in proptest::collection::vec(any::<u8>(), 0..16),
    ) {
        let samples = samples::all();
        let sample = which.get(&samples);
        let (header, payload) = frame::open(&sample.bytes).unwrap();
        let mut bytes = payload.to_vec();
        let at = at.index(bytes.len() + 1);
        bytes.splice(at..(at + with.len()).min(bytes.len()), with);
        let _ = decode_payload(header.kind, &bytes);
    }
}

/// What a sidecar says of itself in free text has a length, and what it counts fits its sum.
#[test]
fn texts_that_are_too_long_and_counts_that_overflow_are_refused() {
    use ringmesh_wire::limits::{BUILD_BYTES_MAX, HEALTH_DETAIL_BYTES_MAX, REGISTERED_PORTS_MAX};
    use ringmesh_wire::report::{DURATION_BUCKETS_US, Series, SeriesValue};
    use ringmesh_wire::session::PortHealth;
    use ringmesh_wire::{AppHealth, Hello, NodeId, Report, codec};

    let hello = |bytes: usize| {
        let hello = Hello {
            version_min: 1,
            version_max: 2,
            node: NodeId("n".into()),
            boot: 1,
            build: "x".repeat(bytes),
            revision: Revision(0),
            have: Vec::new(),
        };
        codec::decode::<Hello>(&codec::encode(&hello).unwrap()).map(|_| ())
    };
    let health = |ports: usize, bytes: usize| {
        let port = PortHealth {
            port: 80,
            healthy: true,
            detail: "x".repeat(bytes),
        };
        let health = AppHealth {
            ports: vec![port; ports],
        };
        codec::decode::<AppHealth>(&codec::encode(&health).unwrap()).map(|_| ())
    };
    let histogram = |count: u64| {
        let mut buckets = vec![0; DURATION_BUCKETS_US.len() + 1];
        (buckets[0], buckets[1]) = (u64::MAX - 1, count);
        let report = Report {
            node: NodeId("n".into()),
            boot: 1,
            sequence: 1,
            series: vec![Series {
                name: "x".into(),
                labels: Vec::new(),
                value: SeriesValue::DurationHistogram { buckets, sum_us: 0 },
            }],
        };
        codec::decode::<Report>(&codec::encode(&report).unwrap()).map(|_| ())
    };
    let fitting = [
        hello(BUILD_BYTES_MAX),
        health(REGISTERED_PORTS_MAX, HEALTH_DETAIL_BYTES_MAX),
        histogram(1),
    ];
    assert!(fitting.iter().all(Result::is_ok), "{fitting:?}");
    let over = [
        (hello(BUILD_BYTES_MAX + 1), "wire_too_long"),
        (health(1, HEALTH_DETAIL_BYTES_MAX + 1), "wire_too_long"),
        (health(REGISTERED_PORTS_MAX + 1, 0), "wire_too_long"),
        (histogram(2), "wire_invalid"),
    ];
    for (result, code) in over {
        assert_eq!(result.unwrap_err().code(), code);
    }
}
