//! `x-request-id` as Envoy makes it: a random UUID whose fourteenth digit says why the request is traced.

use rand::Rng;

use super::sampling::Reason;

/// Where the reason stands in a UUID's text.
const REASON: usize = 14;

/// A new id, not traced.
pub fn generate(rng: &mut impl Rng) -> String {
    let random: u128 = rng.random();
    uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid().hyphenated().to_string()
}

/// Why the id's request is traced; `None` for an id that is no UUID of Envoy's kind.
pub fn reason(id: &str) -> Option<Reason> {
    if id.len() < 36 {
        return None;
    }
    Some(match id.as_bytes()[REASON] {
        b'9' => Reason::Sampled,
        b'a' => Reason::Forced,
        b'b' => Reason::Client,
        _ => Reason::None,
    })
}

/// The id with this reason in it; ids that are no UUIDs stay as they are.
pub fn with_reason(id: &str, reason: Reason) -> String {
    let mut text = id.to_owned();
    if id.len() >= 36 && id.is_char_boundary(REASON) && id.is_char_boundary(REASON + 1) {
        let digit = match reason {
            Reason::None => "4",
            Reason::Sampled => "9",
            Reason::Forced => "a",
            Reason::Client => "b",
        };
        text.replace_range(REASON..=REASON, digit);
    }
    text
}

/// A number that all proxies draw alike from this id, so that they sample alike.
pub fn sample(id: &str) -> Option<u64> {
    u64::from_str_radix(id.get(..8).filter(|_| id.len() >= 36)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_survives_in_the_id() {
        let id = generate(&mut rand::rng());
        assert_eq!(reason(&id), Some(Reason::None));
        for wanted in [Reason::Sampled, Reason::Forced, Reason::Client, Reason::None] {
            assert_eq!(reason(&with_reason(&id, wanted)), Some(wanted));
        }
        assert_eq!(reason("mine"), None);
        assert_eq!(with_reason("mine", Reason::Sampled), "mine");
        assert_eq!(sample("0000000a-0000-4000-8000-000000000000"), Some(10));
    }
}
