//! Durations as Go writes them (`1h5m`, `500ms`, `0.5s`), which is what Istio's parsers accept.

use std::time::Duration;

/// Reads a Go duration that is not negative.
pub fn parse(text: &str) -> Result<Duration, &'static str> {
    let body = text.strip_prefix('+').unwrap_or(text);
    if body == "0" {
        return Ok(Duration::ZERO);
    }
    if body.starts_with('-') {
        return Err("it is negative");
    }
    if body.is_empty() {
        return Err("it is empty");
    }
    let mut rest = body;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let digits =
            rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or("a unit is missing (as in \"5s\")")?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        nanos = nanos.checked_add(amount(number, scale(unit)?)?).ok_or("it is too long")?;
        rest = tail;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| "it is too long")?;
    if seconds > 315_576_000_000 {
        return Err("it is too long");
    }
    Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// Writes seconds as proto-JSON does: `5s`, `0.5s`.
pub fn format(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    if nanos == 0 {
        return format!("{}s", duration.as_secs());
    }
    let fraction = format!("{nanos:09}");
    format!("{}.{}s", duration.as_secs(), fraction.trim_end_matches('0'))
}

fn scale(unit: &str) -> Result<u128, &'static str> {
    Ok(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err("its unit is none of ns, us, ms, s, m, h"),
    })
}

fn amount(number: &str, scale: u128) -> Result<u128, &'static str> {
    const BAD: &str = "its number cannot be read";
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 18 || fraction.contains('.') {
        return Err(BAD);
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| BAD)? };
    let fraction = &fraction[..fraction.len().min(18)];
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| BAD)? };
    Ok(whole * scale + part * scale / 10u128.pow(fraction.len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        let ok =
            |text: &str, millis: u64| assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        ok("5s", 5000);
        ok("0.5s", 500);
        ok("1h5m", 3_900_000);
        ok("10ms", 10);
        ok(".5s", 500);
        ok("0", 0);
        for bad in ["", "5", "5x", "s", ".s", "-1s", "1.2.3s", "99999999999999999999h", "1 s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn writes_seconds() {
        assert_eq!(format(Duration::from_millis(500)), "0.5s");
        assert_eq!(format(Duration::from_secs(60)), "60s");
    }
}
