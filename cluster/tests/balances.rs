//! Are balances answered in parts, each campaign once?

mod support;

use gavel_member::{Shutdown, transport};
use gavel_proto::wire::ledger_service_client::LedgerServiceClient;
use gavel_proto::wire::ledger_wish::Body;
use gavel_proto::wire::{BalancesRequest, ClockRequest, LedgerRequest, LedgerWish, SetBudgets};
use support::{CLUSTER, PATIENCE, lone};
use tonic::transport::Channel;

/// The campaigns of each page.
async fn pages(ledger: &mut LedgerServiceClient<Channel>, campaigns: &[u64], limit: u32) -> Vec<Vec<u64>> {
    let (mut found, mut from) = (Vec::new(), 0);
    loop {
        let request = BalancesRequest { campaigns: campaigns.to_vec(), from, limit };
        let page = ledger.balances(request).await.expect("answers").into_inner();
        assert!(page.campaigns.len() <= limit as usize);
        assert!(from == 0 || page.state_digest.is_empty(), "the first page has it");
        found.push(page.campaigns.iter().map(|c| c.campaign_id).collect());
        from = page.next;
        if from == 0 {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balances_come_in_pages() {
    let folder = tempfile::tempdir().expect("a folder");
    let shutdown = Shutdown::new();
    let running = lone(folder.path(), &shutdown).await;
    let channel = transport::control_channel(&running.address.to_string()).expect("an address");
    let mut ledger = LedgerServiceClient::new(channel);

    let ids = [0, 3, 4, 90, 91];
    let set = |id| SetBudgets { campaign_id: id, advertiser_id: 1, lifetime_nanos: Some(5), ..SetBudgets::default() };
    let wishes = ids.iter().map(|id| LedgerWish { body: Some(Body::SetBudgets(set(*id))) }).collect();
    let request = LedgerRequest { cluster_id: CLUSTER.to_owned(), wishes };
    let formed = async {
        loop {
            match ledger.clone().post(request.clone()).await {
                Ok(reply) => return reply.into_inner(),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    };
    let set = tokio::time::timeout(PATIENCE, formed).await.expect("the ledger is formed");

    // Whoever reads a copy of the ledger asks without a wish how far it must be to have what was set.
    let question = LedgerRequest { cluster_id: CLUSTER.to_owned(), wishes: Vec::new() };
    let newest = ledger.post(question).await.expect("answers").into_inner();
    assert!(set.log_index > 0 && newest.log_index >= set.log_index, "{} and {}", newest.log_index, set.log_index);
    assert_eq!(newest.campaigns, ids.len() as u64);

    assert_eq!(pages(&mut ledger, &[], 2).await, [vec![0, 3], vec![4, 90], vec![91]]);
    // The rest was lost behind a page of campaign 0 alone.
    assert_eq!(pages(&mut ledger, &[], 1).await, [[0], [3], [4], [90], [91]]);
    assert_eq!(pages(&mut ledger, &[4, 91, 7], 1).await, [[4], [91]]);
    let some = BalancesRequest { campaigns: vec![4, 91, 7], from: 0, limit: 0 };
    let some = ledger.balances(some).await.expect("answers").into_inner();
    assert_eq!((some.campaigns.len(), some.next), (2, 0));

    let clock = ledger.clock(ClockRequest { cluster_id: CLUSTER.to_owned() }).await.expect("answers").into_inner();
    assert!(clock.wall_ms >= some.wall_ms, "a voter says what its own clock says");
    shutdown.trigger();
    running.task.await.expect("joined").expect("stopped as asked");
}
