//! Query parameters.

use percent_encoding::percent_decode_str;

/// The parameters of a request, in order.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// From the part after the question mark.
    pub fn parse(query: &str) -> Self {
        let decode =
            |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode_regex_safe(value))
        });
        Self(pairs.collect())
    }

    /// Whether it is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Values are often regular expressions that nobody encodes: a plus stays one.
fn decode_regex_safe(value: &str) -> String {
    percent_decode_str(value).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_agents_queries() {
        let params = Params::parse("usedonly&filter=^(server%5C.state|listener_manager\\.workers_started)");
        assert!(params.has("usedonly"));
        assert_eq!(params.get("filter"), Some(r"^(server\.state|listener_manager\.workers_started)"));
        assert_eq!(Params::parse("filter=a+b").get("filter"), Some("a+b"));
    }
}
