//! Carries out what the service wants changed in a request.

use sail_proxy_config::http_filter::ext_authz::ExtAuthz;
use sail_proxy_decide::headers::AppendAction;
use sail_proxy_decide::mutation_rules::Check;

use super::Consent;
use crate::filters::edit::{self, Invalid};
use crate::http::head::Head;

/// Changes the head, and says whether anything was changed. It fails where the configuration wants changes to be valid.
pub(super) fn request(config: &ExtAuthz, consent: &Consent, head: &mut Head) -> Result<bool, Invalid> {
    let mut changed = false;
    for (name, value) in &consent.set {
        changed |= one(config, head, name, value, AppendAction::OverwriteIfExistsOrAdd)?;
    }
    for (name, value) in &consent.append {
        // Envoy appends to what is there, and adds nothing.
        let Some(old) = head.headers.get(name.as_str()) else { continue };
        let joined = [old.as_bytes(), b",", value].concat();
        changed |= one(config, head, name, &joined, AppendAction::OverwriteIfExistsOrAdd)?;
    }
    for name in &consent.remove {
        let name = name.to_ascii_lowercase();
        let verdict = config.mutation_rules.as_ref().map(|rules| rules.may_remove(&name));
        match verdict {
            Some(Check::Failed) => return Err(Invalid),
            Some(Check::Ignored) => {}
            None | Some(Check::Allowed) => {
                edit::remove(&mut head.headers, &name);
                changed = true;
            }
        }
    }
    changed |= query(config, consent, head)?;
    Ok(changed)
}

fn one(
    config: &ExtAuthz,
    head: &mut Head,
    name: &str,
    value: &[u8],
    action: AppendAction,
) -> Result<bool, Invalid> {
    let name = name.to_ascii_lowercase();
    match config.mutation_rules.as_ref().map(|rules| rules.may_set(&name)) {
        Some(Check::Failed) => return Err(Invalid),
        Some(Check::Ignored) => return Ok(false),
        None | Some(Check::Allowed) => {}
    }
    match edit::set_request(head, &name, value, action) {
        Ok(()) => Ok(true),
        Err(invalid) if config.validate_mutations => Err(invalid),
        Err(Invalid) => Ok(false),
    }
}

fn query(config: &ExtAuthz, consent: &Consent, head: &mut Head) -> Result<bool, Invalid> {
    if consent.set_query.is_empty() && consent.remove_query.is_empty() {
        return Ok(false);
    }
    let path = with_query(head.path.as_str(), &consent.set_query, &consent.remove_query);
    one(config, head, ":path", path.as_bytes(), AppendAction::OverwriteIfExistsOrAdd)
}

/// A path with parameters set and removed; the others stay where they are.
fn with_query(path: &str, set: &[(String, String)], remove: &[String]) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut parameters: Vec<(String, String)> = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    for (key, value) in set {
        match parameters.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => old.clone_from(value),
            None => parameters.push((key.clone(), value.clone())),
        }
    }
    parameters.retain(|(key, _)| !remove.contains(key));
    let query: Vec<_> = parameters.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::with_query;

    #[test]
    fn parameters_are_set_and_removed() {
        let set = [("a".to_owned(), "2".to_owned()), ("new".to_owned(), "x".to_owned())];
        assert_eq!(with_query("/p?a=1&b=1", &set, &["b".to_owned()]), "/p?a=2&new=x");
        assert_eq!(with_query("/p?b=1", &[], &["b".to_owned()]), "/p");
    }
}
