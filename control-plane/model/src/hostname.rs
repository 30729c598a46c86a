//! Host names as configuration writes them: exact (`reviews.default.svc.cluster.local`), or with a wildcard as their first
//! label (`*.example.com`, `*`).

/// Whether the name begins with a wildcard.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether some host is matched by both names; either may be a wildcard.
pub fn overlap(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        (Some(suffix), None) => covers_suffix(suffix, b),
        (None, Some(suffix)) => covers_suffix(suffix, a),
        (None, None) => a.eq_ignore_ascii_case(b),
    }
}

/// Whether every host that `inner` matches is matched by `outer`.
pub fn covers(outer: &str, inner: &str) -> bool {
    match (outer.strip_prefix('*'), inner.strip_prefix('*')) {
        (Some(outer), Some(inner)) => inner.ends_with(outer),
        (Some(suffix), None) => covers_suffix(suffix, inner),
        (None, Some(_)) => false,
        (None, None) => outer.eq_ignore_ascii_case(inner),
    }
}

fn covers_suffix(suffix: &str, host: &str) -> bool {
    // "*.example.com" stands for a name before the dot, which "example.com" lacks.
    host.len() > suffix.len() && host.ends_with(suffix) || suffix.is_empty()
}

/// How specific a name is: an exact name before every wildcard, a longer wildcard before a shorter one.
pub fn specificity(host: &str) -> (bool, usize) {
    (!is_wildcard(host), host.len())
}

/// The host as it is meant in a namespace: a name without a dot is a service of that namespace.
pub fn resolve(host: &str, namespace: &str, domain_suffix: &str) -> String {
    if host.contains('.') || host.contains('*') || host.is_empty() {
        host.to_owned()
    } else {
        format!("{host}.{namespace}.svc.{domain_suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_names_below_them() {
        assert!(covers("*", "a.b"));
        assert!(covers("*.example.com", "www.example.com"));
        assert!(covers("*.example.com", "*.eu.example.com"));
        assert!(!covers("*.example.com", "example.com"));
        assert!(!covers("www.example.com", "*.example.com"));
        assert!(overlap("*.com", "*.example.com"));
        assert!(overlap("www.example.com", "*.example.com"));
        assert!(!overlap("a", "b"));
    }

    #[test]
    fn short_names_are_of_the_namespace() {
        assert_eq!(resolve("reviews", "default", "cluster.local"), "reviews.default.svc.cluster.local");
        assert_eq!(resolve("example.com", "default", "cluster.local"), "example.com");
    }
}
