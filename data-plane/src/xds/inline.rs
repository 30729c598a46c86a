//! Route tables that stand in listeners: their clusters must be known, unless they say otherwise. Of tables that come by
//! themselves that holds where they say so.

use xds_api::envoy::config::route::v3 as pb;

/// Refuses a table that names a cluster which is not known.
pub(super) fn check_clusters(
    table: &pb::RouteConfiguration,
    is_known: impl Fn(&str) -> bool,
) -> Result<(), String> {
    if table.validate_clusters.as_ref().is_some_and(|value| !value.value) {
        return Ok(());
    }
    for (host_at, host) in table.virtual_hosts.iter().enumerate() {
        for (route_at, route) in host.routes.iter().enumerate() {
            let Some(pb::route::Action::Route(action)) = &route.action else { continue };
            if let Some((field, name)) = clusters(action).find(|(_, name)| !is_known(name)) {
                return Err(format!(
                    "route_config.virtual_hosts[{host_at}].routes[{route_at}].route.{field}: unknown cluster \
                     {name:?}; with validate_clusters: false, requests to it are answered 503"
                ));
            }
        }
    }
    Ok(())
}

/// The clusters that a route names, by the field that does.
fn clusters(action: &pb::RouteAction) -> impl Iterator<Item = (&'static str, &str)> {
    use pb::route_action::ClusterSpecifier as Specifier;
    let single = match &action.cluster_specifier {
        Some(Specifier::Cluster(name)) => Some(("cluster", name.as_str())),
        _ => None,
    };
    let weighted = match &action.cluster_specifier {
        Some(Specifier::WeightedClusters(weighted)) => weighted.clusters.as_slice(),
        _ => &[],
    };
    let weighted = weighted.iter().map(|cluster| ("weighted_clusters", cluster.name.as_str()));
    let mirrors = action
        .request_mirror_policies
        .iter()
        .map(|mirror| ("request_mirror_policies", mirror.cluster.as_str()));
    single.into_iter().chain(weighted.chain(mirrors).filter(|(_, name)| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_cluster_is_found() {
        let action = pb::RouteAction {
            cluster_specifier: Some(pb::route_action::ClusterSpecifier::Cluster("gone".to_owned())),
            ..pb::RouteAction::default()
        };
        let route = pb::Route { action: Some(pb::route::Action::Route(action)), ..pb::Route::default() };
        let host = pb::VirtualHost { routes: vec![route], ..pb::VirtualHost::default() };
        let mut table =
            pb::RouteConfiguration { virtual_hosts: vec![host], ..pb::RouteConfiguration::default() };
        let error = check_clusters(&table, |name| name == "b").unwrap_err();
        assert!(
            error.starts_with("route_config.virtual_hosts[0].routes[0].route.cluster: unknown cluster"),
            "{error}"
        );
        assert_eq!(check_clusters(&table, |name| name == "gone"), Ok(()));
        table.validate_clusters = Some(xds_api::google::protobuf::BoolValue { value: false });
        assert_eq!(check_clusters(&table, |_| false), Ok(()));
    }
}
