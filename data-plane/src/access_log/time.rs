//! Times in log lines. A second's digits are kept, since most lines of a second share them.

use std::cell::RefCell;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use sail_proxy_decide::format::TimeFormat;

thread_local! {
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Appends the time. Local times are UTC: a proxy's container has no other.
pub(super) fn write(time: SystemTime, format: &TimeFormat, out: &mut String) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Writing to a string does not fail.
    let _ = match format {
        TimeFormat::Default => SECOND.with_borrow_mut(|(second, text)| {
            if *second != since.as_secs() {
                *second = since.as_secs();
                text.clear();
                let _ = write!(text, "{}", strftime(since, "%Y-%m-%dT%H:%M:%S"));
            }
            write!(out, "{text}.{:03}Z", since.subsec_millis())
        }),
        TimeFormat::Strftime(pattern) => write!(out, "{}", strftime(since, pattern)),
    };
}

fn strftime(since: Duration, pattern: &str) -> String {
    let Ok(seconds) = i64::try_from(since.as_secs()) else { return String::new() };
    let Ok(time) = jiff::Timestamp::new(seconds, since.subsec_nanos() as i32) else { return String::new() };
    // Envoy's `%f` has nine digits, `%3f` three; the library knows both, and `%s`.
    jiff::fmt::strtime::format(pattern.replace("%f", "%9f"), &time.to_zoned(jiff::tz::TimeZone::UTC))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_522_796_769_123_456);
        let check = |format: TimeFormat, expect: &str| {
            let mut out = String::new();
            write(time, &format, &mut out);
            assert_eq!(out, expect);
        };
        check(TimeFormat::Default, "2018-04-03T23:06:09.123Z");
        check(TimeFormat::Strftime("%Y/%m/%dT%H:%M:%S%z %s".into()), "2018/04/03T23:06:09+0000 1522796769");
        check(TimeFormat::Strftime("%s.%3f %f".into()), "1522796769.123 123456000");
    }
}
