//! Consistent hashing: ketama rings and Maglev tables.

use xxhash_rust::xxh64::xxh64;

use super::HashFunction;

/// A host as hashing sees it.
#[derive(Clone, Debug)]
pub(super) struct Hashed {
    /// Its index in the priority.
    pub(super) index: usize,
    /// What is hashed of it.
    pub(super) key: String,
    /// Its share.
    pub(super) weight: f64,
}

/// Where hashes lead.
#[derive(Debug)]
pub(super) enum Table {
    Ring(Box<[(u64, u32)]>),
    Maglev(Box<[u32]>),
}

impl Table {
    /// A ring of hosts.
    pub(super) fn ring(hosts: &[Hashed], minimum: u64, maximum: u64, function: HashFunction) -> Self {
        let total: f64 = hosts.iter().map(|host| host.weight).sum();
        let least = hosts.iter().map(|host| host.weight / total).fold(1.0, f64::min);
        // So many points that the host with the least weight has a whole number of them, and the ring is large enough.
        #[expect(clippy::cast_precision_loss, reason = "ring sizes are at most 2^23")]
        let scale = ((least * minimum as f64).ceil() / least).min(maximum as f64);
        let mut points = Vec::new();
        let (mut current, mut target) = (0.0, 0.0);
        for host in hosts {
            target += scale * host.weight / total;
            let mut point = 0_u32;
            while current < target {
                let key = format!("{}_{point}", host.key);
                points.push((hash(function, key.as_bytes()), u32::try_from(host.index).unwrap_or(u32::MAX)));
                point += 1;
                current += 1.0;
            }
        }
        points.sort_unstable();
        Self::Ring(points.into())
    }

    /// A Maglev table of hosts; `size` is a prime.
    pub(super) fn maglev(hosts: &[Hashed], size: u64) -> Self {
        struct Build {
            index: u32,
            offset: u64,
            skip: u64,
            weight: f64,
            target: f64,
            next: u64,
        }
        let most = hosts.iter().map(|host| host.weight).fold(f64::MIN_POSITIVE, f64::max);
        let mut builds: Vec<_> = hosts
            .iter()
            .map(|host| Build {
                index: u32::try_from(host.index).unwrap_or(u32::MAX),
                offset: xxh64(host.key.as_bytes(), 0) % size,
                skip: xxh64(host.key.as_bytes(), 1) % (size - 1).max(1) + 1,
                weight: host.weight / most,
                target: 0.0,
                next: 0,
            })
            .collect();
        let mut table = vec![u32::MAX; usize::try_from(size).unwrap_or(0)];
        let mut filled = 0;
        let mut round = 1.0;
        while filled < table.len() && !builds.is_empty() {
            for build in &mut builds {
                if filled == table.len() {
                    break;
                }
                // Hosts of lower weight take part in every so many rounds.
                if round * build.weight < build.target {
                    continue;
                }
                build.target += 1.0;
                let place = loop {
                    let place = (build.offset + build.skip * build.next) % size;
                    build.next += 1;
                    if let Some(slot) = table.get_mut(usize::try_from(place).unwrap_or(0))
                        && *slot == u32::MAX
                    {
                        break slot;
                    }
                };
                *place = build.index;
                filled += 1;
            }
            round += 1.0;
        }
        Self::Maglev(table.into())
    }

    /// The hosts for a hash, the first choice first; may repeat itself. Later attempts begin elsewhere.
    pub(super) fn walk(&self, hash: u64, attempt: u32) -> impl Iterator<Item = usize> {
        let (start, length) = match self {
            Self::Ring(points) => {
                let first = points.partition_point(|(point, _)| *point < hash);
                // Past the last point is the first one.
                let first = if first == points.len() { 0 } else { first };
                (first + attempt as usize, points.len())
            }
            Self::Maglev(table) => {
                let length = table.len();
                let hash = hash ^ u64::from(attempt).wrapping_neg();
                (usize::try_from(hash % (length as u64).max(1)).unwrap_or(0), length)
            }
        };
        (0..length).filter_map(move |step| {
            let at = (start + step) % length;
            let index = match self {
                Self::Ring(points) => points.get(at)?.1,
                Self::Maglev(table) => *table.get(at)?,
            };
            usize::try_from(index).ok()
        })
    }
}

fn hash(function: HashFunction, bytes: &[u8]) -> u64 {
    match function {
        HashFunction::XxHash => xxh64(bytes, 0),
        HashFunction::MurmurHash2 => murmur2(bytes),
    }
}

/// MurmurHash2, 64 bits, with the seed of libstdc++.
fn murmur2(bytes: &[u8]) -> u64 {
    const MUL: u64 = 0xc6a4_a793_5bd1_e995;
    let shift_mix = |value: u64| value ^ (value >> 47);
    let mut hash = 0xc70f_6907_u64 ^ (bytes.len() as u64).wrapping_mul(MUL);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        hash ^= shift_mix(word.wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = hash.wrapping_mul(MUL);
    }
    let tail = chunks.remainder();
    if !tail.is_empty() {
        let word = tail.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(MUL);
    }
    shift_mix(shift_mix(hash).wrapping_mul(MUL))
}
