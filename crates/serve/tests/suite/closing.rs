//! Between the signal to stop and the end of listening: probes hear of it, everybody else is answered.

use std::time::Duration;

use centuple_serve::Config;

use crate::harness::{Running, config, tiny};

#[test]
fn probes_hear_of_the_end_and_requests_are_answered() {
    // Longer than any test: what it looks at does not end meanwhile.
    let config = Config { drain_delay: Duration::from_secs(3600), ..config() };
    let mut server = Running::new(config, vec![tiny::embedder(true)]);
    let mut kept = server.connect();
    let before = kept.request("POST", "/", &[], br#"{"inputs": "cat"}"#);
    assert_eq!((before.status, before.header("connection")), (200, None));
    assert_eq!(server.get("/v2/health/ready").status, 200);
    server.stop();
    while server.get("/health").status == 200 {}
    let told = ["/health", "/ping", "/v2/health/ready", "/v2/health/live"].map(|path| server.get(path));
    assert_eq!(told.each_ref().map(|answer| answer.status), [503, 503, 400, 200]);
    assert_eq!(told[2].json(), serde_json::json!({"ready": false}));
    // One that had its connection before, and one that comes only now.
    for mut client in [kept, server.connect()] {
        let after = client.request("POST", "/", &[], br#"{"inputs": "cat"}"#);
        assert_eq!((after.status, &after.body, after.header("connection")), (200, &before.body, Some("close")));
        assert!(client.response().is_none(), "its connection is closed");
    }
    let missing = server.get("/nothing");
    assert_eq!((missing.status, missing.header("connection")), (404, Some("close")));
}
