//! The compiled table equals a naive linear matcher.

use http::HeaderValue;
use portolan_model::{NameValueMatch, ValueMatch};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// What the model's words mean, without any index: every rule of every route is looked at.
fn naive(routes: &[Arc<Route>], role: Role, asked: &Asked) -> String {
    let request = asked.view();
    let host = request.host.unwrap_or_default();
    let reachable = || routes.iter().filter(|route| route.roles.contains(role));
    let named = || reachable().flat_map(|route| &route.hosts).filter(|known| known.host.matches(host));
    if named().next().is_some() && !named().any(|known| known.port.matches(request.port)) {
        return "unknown port".to_owned();
    }
    let here = |known: &HostMatch| known.host.matches(host) && known.port.matches(request.port);
    let best = reachable()
        .filter(|route| route.hosts.is_empty() || route.hosts.iter().any(here))
        .flat_map(|route| route.rules.iter().enumerate().map(move |rule| (route, rule)))
        .filter(|(_, (_, rule))| {
            rule.matches.is_empty() || rule.matches.iter().any(|said| holds(said, asked))
        })
        .min_by(|(a, (m, left)), (b, (n, right))| (&left.rank, &a.id, m).cmp(&(&right.rank, &b.id, n)));
    best.map_or("no route".to_owned(), |(route, (number, _))| format!("{}#{number}", route.id))
}

fn holds(said: &Match, asked: &Asked) -> bool {
    let full =
        |pattern: &str, text: &str| regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(text);
    let value = |wanted: &ValueMatch, is: &str| match wanted {
        ValueMatch::Present => true,
        ValueMatch::Exact(exact) => exact == is,
        ValueMatch::Regex(pattern) => full(pattern, is),
    };
    let path = match &said.path {
        PathMatch::Regex(pattern) => full(pattern, &asked.path),
        plain => plain.matches(&asked.path).unwrap(),
    };
    let query = asked.query.as_deref().unwrap_or_default();
    let parameters = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let parameters = parameters.collect::<Vec<_>>();
    path && said.method.as_deref().is_none_or(|method| method == asked.method.as_str())
        && said.headers.iter().all(|wanted| {
            asked.headers.get_all(&wanted.name).iter().any(|is| value(&wanted.value, is.to_str().unwrap()))
        })
        && said.query.iter().all(|wanted| {
            parameters.iter().any(|(name, is)| *name == wanted.name && value(&wanted.value, is))
        })
}

const HOSTS: [&str; 7] = [
    "orders",
    "orders.shop",
    "a.example.com",
    "b.a.example.com",
    "*.example.com",
    "*.a.example.com",
    "*.com",
];
const ASKED_HOSTS: [&str; 9] = [
    "orders",
    "orders.shop",
    "a.example.com",
    "b.a.example.com",
    "c.example.com",
    "example.com",
    "com",
    "unknown",
    "",
];
const PATHS: [&str; 8] = ["", "/a", "/a/b", "/a/b/c", "/ab", "/a/", "/b", "/a//b"];
const ASKED_PATHS: [&str; 12] =
    ["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c/d", "/ab", "/abc", "/b/a", "/a//b/c", "*", "/a/bc"];
const PATTERNS: [&str; 3] = ["/a/.*", "/(a|b)", "/a|/b/a"];
const VALUES: [&str; 2] = ["x", "y"];
const METHODS: [&str; 2] = ["GET", "POST"];

fn port_matches() -> impl Strategy<Value = PortMatch> {
    prop_oneof![
        Just(PortMatch::Any),
        Just(PortMatch::Absent),
        Just(PortMatch::Exact(80)),
        Just(PortMatch::Exact(81))
    ]
}

fn path_matches() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        1 => Just(PathMatch::Any),
        3 => select(&ASKED_PATHS[..]).prop_map(|text| PathMatch::Exact(text.to_owned())),
        5 => select(&PATHS[..]).prop_map(|text| PathMatch::Prefix(text.to_owned())),
        1 => select(&PATTERNS[..]).prop_map(|text| PathMatch::Regex(text.to_owned())),
    ]
}

fn values() -> impl Strategy<Value = Vec<NameValueMatch>> {
    let value = prop_oneof![
        Just(ValueMatch::Present),
        select(&VALUES[..]).prop_map(|text| ValueMatch::Exact(text.to_owned())),
        Just(ValueMatch::Regex("x|z".to_owned())),
    ];
    let one = (select(&["h", "k"][..]), value)
        .prop_map(|(name, value)| NameValueMatch { name: name.to_owned(), value });
    prop_oneof![3 => Just(Vec::new()), 1 => vec(one, 1..3)]
}

fn matches() -> impl Strategy<Value = Match> {
    let method =
        prop_oneof![3 => Just(None), 1 => select(&METHODS[..]).prop_map(|method| Some(method.to_owned()))];
    (path_matches(), method, values(), values()).prop_map(|(path, method, headers, query)| Match {
        path,
        method,
        headers,
        query,
    })
}

/// Ranks at random, so that no index may rely on the usual order of hosts and paths; some are the same.
fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let one =
        (0..3_i64, any::<[bool; 3]>(), vec(matches(), 0..3)).prop_map(|(order, specificity, matches)| {
            let specificity = specificity.map(u32::from);
            let rank = Rank { order, specificity: Reverse(specificity), created: 0, tie: ("".into(), 0) };
            Rule { rank, matches, filters: Vec::new(), backends: Vec::new() }
        });
    vec(one, 1..4)
}

fn routes() -> impl Strategy<Value = Vec<Arc<Route>>> {
    let hosts = vec((select(&HOSTS[..]), port_matches()).prop_map(|(name, port)| host(name, port)), 0..4);
    let roles =
        prop_oneof![Just(Roles::ALL), Just(Roles::CLUSTER), Just(Roles { edge: true, cluster: false })];
    vec((roles, hosts, rules()), 0..12).prop_map(|all| {
        let named = all.into_iter().enumerate().map(|(number, (roles, hosts, rules))| {
            let id = RouteId::new(format!("r{number:02}"));
            Arc::new(Route { id, source: service("s"), roles, hosts, rules })
        });
        named.collect()
    })
}

fn requests() -> impl Strategy<Value = Asked> {
    let pairs = || option::of((select(&["h", "k"][..]), select(&VALUES[..])));
    let port = select(&[None, Some(80), Some(81), Some(82)][..]);
    (select(&ASKED_HOSTS[..]), port, select(&ASKED_PATHS[..]), select(&METHODS[..]), pairs(), pairs())
        .prop_map(|(host, port, path, method, header, query)| {
            let mut asked = get(path);
            asked.host = (!host.is_empty()).then(|| host.to_owned());
            asked.port = port;
            asked.method = method.parse().unwrap();
            asked.query = query.map(|(name, value)| format!("z&{name}={value}"));
            if let Some((name, value)) = header {
                asked.headers.insert(name, HeaderValue::from_static(value));
            }
            asked
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_finds_what_a_linear_search_finds(routes in routes(), requests in vec(requests(), 1..60)) {
        let table = table(&routes);
        for asked in &requests {
            for role in [Role::Edge, Role::Cluster] {
                prop_assert_eq!(
                    asked.at(&table, role), naive(&routes, role, asked),
                    "{:?} {} {:?}:{:?}{} ? {:?}, {:?}",
                    role, asked.method, asked.host, asked.port, asked.path, asked.query, asked.headers
                );
            }
        }
    }

    #[test]
    fn a_table_that_follows_another_equals_one_made_afresh(
        before in routes(), after in routes(), requests in vec(requests(), 1..30),
    ) {
        let now = Instant::now();
        let first = table(&before);
        let second = snapshot(2, &after, &[cluster("a", &[])]);
        let mut clusters = Clusters::default();
        clusters.follow(first.snapshot(), &second, now).retire();
        let (second, _) = RoutingTable::compile(&second, &clusters, &first, now);
        for asked in &requests {
            prop_assert_eq!(asked.at(&second, Role::Edge), naive(&after, Role::Edge, asked));
        }
    }
}
