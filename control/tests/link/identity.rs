//! Joining, renewing, revoking, over the wire.

use ringmesh_control::svid::{Peer, Purpose};
use ringmesh_wire::frame::Kind;
use ringmesh_wire::{Hello, Issued, NodeId, Reject, Renew, Welcome};

use crate::player::{House, ask, greet, hello, key_and_csr, registration, state, until};

#[tokio::test]
async fn a_token_buys_an_identity_once() {
    let house = House::new();
    let token = house.token("n1", "reviews");
    let refused = house.enroll(&token, "n2").await.err().unwrap();
    assert_eq!(refused.code, "token_node_mismatch");
    let joined = house.enroll(&token, "n1").await.unwrap();
    let peer = Peer::from_der(&joined.workload.chain[0]).unwrap();
    assert_eq!(
        peer.id.as_str(),
        "spiffe://mesh.local/ns/default/sa/reviews"
    );
    let refused = house.enroll(&token, "n1").await.err().unwrap();
    assert_eq!(refused.code, "token_used");
}

#[tokio::test]
async fn without_a_certificate_only_enroll_is_served() {
    let house = House::new();
    let link = house.link(None).await.unwrap();
    let answer = ask::<Hello, Welcome>(&link, Kind::Hello, &hello("n1"), Kind::Welcome).await;
    assert_eq!(answer.unwrap_err().code, "certificate_required");
}

#[tokio::test]
async fn a_node_credential_renews_and_does_nothing_else() {
    let house = House::new();
    let joined = house.join("n1", "reviews").await;
    let link = house.link(Some(&joined.credential)).await.unwrap();
    let mut session = greet(link.clone(), &hello("n1")).await;
    let refused: Reject = session.expect(Kind::Reject).await;
    assert_eq!(refused.code, "svid_required");
    let (_, csr) = key_and_csr();
    let renew = Renew {
        workload_csr: csr,
        node_csr: None,
    };
    let issued: Issued = ask(&link, Kind::Renew, &renew, Kind::Issued).await.unwrap();
    let peer = Peer::from_der(&issued.workload_chain[0]).unwrap();
    assert!(matches!(peer.purpose, Purpose::Workload { .. }));
    assert_eq!(peer.node, NodeId("n1".into()));
}

#[tokio::test]
async fn a_certificate_of_another_root_gets_no_link() {
    let (house, other) = (House::new(), House::new());
    let stranger = other.join("n1", "reviews").await;
    // TLS 1.3: the server's refusal may arrive after the client believes the handshake done.
    if let Ok(link) = house.link(Some(&stranger.workload)).await {
        let reason = tokio::time::timeout(crate::player::PATIENCE, link.closed()).await;
        assert!(matches!(
            reason.unwrap(),
            quinn::ConnectionError::ConnectionClosed(_)
        ));
    }
    assert!(house.control.sessions().is_empty());
}

/// Also a link without a session: what is begun on it afterwards would be a new life of the node.
#[tokio::test]
async fn revoking_closes_every_link_of_the_node() {
    let house = House::new();
    let joined = house.join("n1", "reviews").await;
    let spare = house.link(Some(&joined.workload)).await.unwrap();
    let _session = house.session(&joined).await;
    let control = std::sync::Arc::clone(&house.control);
    let node = NodeId("n1".into());
    let revoked = tokio::task::spawn_blocking(move || control.revoke(&node, "test")).await;
    revoked.unwrap().unwrap();
    let closed = tokio::time::timeout(crate::player::PATIENCE, spare.closed())
        .await
        .unwrap();
    assert!(closed.to_string().contains("revoked"), "{closed}");
}

#[tokio::test]
async fn revoking_closes_the_link_withdraws_the_endpoint_and_refuses_the_certificate() {
    let house = House::new();
    let joined = house.join("n1", "reviews").await;
    let mut session = house.session(&joined).await;
    session.say(Kind::Register, &registration("reviews")).await;
    until("registered", || state(&house, "n1").is_some()).await;
    let control = std::sync::Arc::clone(&house.control);
    let node = NodeId("n1".into());
    let revoked = tokio::task::spawn_blocking(move || control.revoke(&node, "test")).await;
    assert_eq!(
        revoked.unwrap().unwrap(),
        2,
        "workload certificate and node credential"
    );
    let closed = tokio::time::timeout(crate::player::PATIENCE, session.link.closed())
        .await
        .unwrap();
    assert!(closed.to_string().contains("revoked"), "{closed}");
    assert_eq!(state(&house, "n1"), None);
    for identity in [&joined.workload, &joined.credential] {
        let link = house.link(Some(identity)).await.unwrap();
        let closed = tokio::time::timeout(crate::player::PATIENCE, link.closed())
            .await
            .unwrap();
        assert!(closed.to_string().contains("revoked"), "{closed}");
    }
}
