//! What do the tests of the control plane share?

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path;
use std::time::Duration;

use gavel_control::{ControlConfig, Running};
use gavel_member::{Shutdown, transport};
use gavel_proto::wire;
use gavel_proto::wire::admin_service_client::AdminServiceClient;
use gavel_proto::wire::control_service_client::ControlServiceClient;
use tonic::{Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The cluster of all tests.
pub const CLUSTER: &str = "test";
/// What is waited for comes by then, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Command bodies.
pub mod command {
    use gavel_proto::wire::{self, command::Body};

    /// A bundle under this hash.
    pub fn publish(hash: [u8; 32]) -> Body {
        let name = "demo".to_owned();
        Body::PublishModel(wire::PublishModel { hash: hash.to_vec(), bytes: 1_000, name, ..Default::default() })
    }

    /// A placement of this name.
    pub fn placement(name: &str) -> Body {
        let placement = wire::Placement {
            name: name.to_owned(),
            slots: 2,
            first_position: 0,
            min_gap: 1,
            max_load_ppm: 500_000,
            reserve_cpm_micros: 0,
            category_spacing: 0,
        };
        Body::SetPlacement(wire::SetPlacement { placement: Some(placement), remove: false })
    }
}

/// A voter alone.
pub async fn lone(folder: &Path, shutdown: &Shutdown) -> Running {
    let config = ControlConfig::new(CLUSTER, 1, folder.to_owned(), "127.0.0.1:0", Vec::new());
    gavel_control::run(config, shutdown.clone()).await.expect("runs")
}

/// Views as they come.
pub struct Views(Streaming<wire::View>);

impl Views {
    /// Returns when the voter ends the stream.
    pub async fn end(&mut self) {
        while let Ok(Some(_)) = self.0.message().await {}
    }

    /// The first View that is as wished.
    pub async fn until(&mut self, wish: impl Fn(&wire::View) -> bool) -> wire::View {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let view = self.0.message().await.expect("a stream").expect("goes on");
                if wish(&view) {
                    return view;
                }
            }
        });
        found.await.expect("the view came in time")
    }
}

/// Follows the View of a voter.
pub async fn watch(address: &str) -> Views {
    let mut client = ControlServiceClient::new(transport::control_channel(address).expect("an address"));
    let request = wire::WatchViewRequest { cluster_id: CLUSTER.to_owned(), from_epoch: 0 };
    Views(client.watch_view(request).await.expect("watched").into_inner())
}

/// Proposes once.
pub async fn try_propose(address: &str, id: &str, body: &wire::command::Body) -> Result<wire::ProposeResponse, Status> {
    let mut client = AdminServiceClient::new(transport::control_channel(address).expect("an address"));
    let command = wire::Command { body: Some(body.clone()), ..wire::Command::default() };
    let request =
        wire::ProposeRequest { command_id: id.to_owned(), command: Some(command), cluster_id: CLUSTER.to_owned() };
    client.propose(request).await.map(tonic::Response::into_inner)
}

/// Proposes until a leader answers.
pub async fn propose(address: &str, id: &str, body: &wire::command::Body) -> wire::ProposeResponse {
    propose_to(&[address.to_owned()], id, body).await
}

/// Proposes to whichever voter leads, again and again under the same id.
pub async fn propose_to(addresses: &[String], id: &str, body: &wire::command::Body) -> wire::ProposeResponse {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            for address in addresses {
                match tokio::time::timeout(Duration::from_secs(2), try_propose(address, id, body)).await {
                    Ok(Ok(answer)) if answer.reason != "not_leader" => return answer,
                    Ok(_) | Err(_) => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.expect("a leader answered in time")
}

/// The status of a voter.
pub async fn ask(address: &str) -> wire::StatusResponse {
    let mut client = AdminServiceClient::new(transport::control_channel(address).expect("an address"));
    client.status(wire::StatusRequest { linearizable: false }).await.expect("answers").into_inner()
}

/// Whether a voter answers, leader or not.
pub async fn reached(address: &str) -> bool {
    let mut client = AdminServiceClient::new(transport::control_channel(address).expect("an address"));
    client.status(wire::StatusRequest { linearizable: false }).await.is_ok()
}

/// Whether health says SERVING.
pub async fn healthy(address: &str) -> bool {
    let mut client = HealthClient::new(transport::control_channel(address).expect("an address"));
    let answer = client.check(HealthCheckRequest::default()).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}
