//! Labels and annotations of the pod, from the files of the downward API: one `key="value"` a line, the value quoted
//! as in Go.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::Error;

/// What the pod says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodInfo {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl PodInfo {
    /// Reads `labels` and `annotations` below a directory; both may be missing.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        Ok(Self { labels: read(&dir.join("labels"))?, annotations: read(&dir.join("annotations"))? })
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(Error::Read { path: path.display().to_string(), source }),
    }
}

/// Lines that are not of the form are passed over: the kubelet writes no others.
fn parse(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim();
        let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        Some((key.trim().to_owned(), inner.map_or_else(|| value.to_owned(), unquote)))
    };
    text.lines().filter_map(line).collect()
}

fn unquote(quoted: &str) -> String {
    let mut out = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('x') => push_code(&mut out, &mut chars, 2),
            Some('u') => push_code(&mut out, &mut chars, 4),
            Some('U') => push_code(&mut out, &mut chars, 8),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

fn push_code(out: &mut String, chars: &mut std::str::Chars<'_>, digits: usize) {
    let code: String = chars.take(digits).collect();
    out.push(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32).unwrap_or('\u{fffd}'));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kubelets_lines() {
        let got = parse(
            "app=\"reviews\"\nproxy.istio.io/config=\"binaryPath: envoy\\nconcurrency: 2\\n\"\nq=\"a=\\\"b\\\"\"\n",
        );
        assert_eq!(got["app"], "reviews");
        assert_eq!(got["proxy.istio.io/config"], "binaryPath: envoy\nconcurrency: 2\n");
        assert_eq!(got["q"], "a=\"b\"");
    }

    #[test]
    fn a_missing_directory_says_nothing() {
        assert_eq!(PodInfo::read(Path::new("/nonexistent")).unwrap(), PodInfo::default());
    }
}
