//! Times in log lines. A second's digits are kept, since most lines of a second share them.

use std::cell::RefCell;
use std::fmt::Write;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;
use sail_proxy_decide::format::TimeFormat;

thread_local! {
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

static LOCAL: OnceLock<TimeZone> = OnceLock::new();

/// Which clock a time is written by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    /// UTC.
    Utc,
    /// The machine's.
    Local,
}

/// Reads the local time zone, once: `TZ` as it is given (a zone's name, a file or a rule), else /etc/localtime.
pub(crate) fn set_local_zone(tz: Option<&str>) {
    LOCAL.get_or_init(|| find_zone(tz).unwrap_or(TimeZone::UTC));
}

fn find_zone(tz: Option<&str>) -> Option<TimeZone> {
    let file = |path: &str| TimeZone::tzif(path, &std::fs::read(path).ok()?).ok();
    match tz.map(|tz| tz.strip_prefix(':').unwrap_or(tz)) {
        None => file("/etc/localtime"),
        Some("") => Some(TimeZone::UTC),
        Some(path) if path.starts_with('/') => file(path),
        // A name of the database has no `..`, which would be another file's.
        Some(name) if !name.contains("..") => {
            file(&format!("/usr/share/zoneinfo/{name}")).or_else(|| TimeZone::posix(name).ok())
        }
        Some(_) => None,
    }
}

/// Appends the time.
pub(super) fn write(time: SystemTime, zone: Zone, format: &TimeFormat, out: &mut String) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Writing to a string does not fail.
    let _ = match (format, zone) {
        (TimeFormat::Default, Zone::Utc) => SECOND.with_borrow_mut(|(second, text)| {
            if *second != since.as_secs() {
                *second = since.as_secs();
                text.clear();
                let _ = write!(text, "{}", strftime(since, zone, "%Y-%m-%dT%H:%M:%S"));
            }
            write!(out, "{text}.{:03}Z", since.subsec_millis())
        }),
        (TimeFormat::Default, Zone::Local) => {
            write!(out, "{}", strftime(since, zone, "%Y-%m-%dT%H:%M:%S.%3f%z"))
        }
        (TimeFormat::Strftime(pattern), zone) => write!(out, "{}", strftime(since, zone, pattern)),
    };
}

fn strftime(since: Duration, zone: Zone, pattern: &str) -> String {
    let Ok(seconds) = i64::try_from(since.as_secs()) else { return String::new() };
    let Ok(time) = jiff::Timestamp::new(seconds, since.subsec_nanos() as i32) else { return String::new() };
    let zone = match zone {
        Zone::Utc => TimeZone::UTC,
        Zone::Local => LOCAL.get().cloned().unwrap_or(TimeZone::UTC),
    };
    // Envoy's `%f` has nine digits, `%3f` three; the library knows both, and `%s`.
    jiff::fmt::strtime::format(pattern.replace("%f", "%9f"), &time.to_zoned(zone)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_522_796_769_123_456);
        let check = |format: TimeFormat, expect: &str| {
            let mut out = String::new();
            write(time, Zone::Utc, &format, &mut out);
            assert_eq!(out, expect);
        };
        check(TimeFormat::Default, "2018-04-03T23:06:09.123Z");
        check(TimeFormat::Strftime("%Y/%m/%dT%H:%M:%S%z %s".into()), "2018/04/03T23:06:09+0000 1522796769");
        check(TimeFormat::Strftime("%s.%3f %f %Z".into()), "1522796769.123 123456000 UTC");
    }

    #[test]
    fn zones_are_rules_or_names() {
        let winter = jiff::Timestamp::new(1_795_247_880, 0).unwrap();
        let zone = find_zone(Some("CET-1CEST,M3.5.0,M10.5.0/3")).unwrap();
        let text = jiff::fmt::strtime::format("%H:%M%z", &winter.to_zoned(zone)).unwrap();
        assert_eq!(text, "08:58+0100");
        assert!(find_zone(Some("../../etc/passwd")).is_none());
    }
}
