//! What can be asked of campaigns, and how is a wish carried out once?
//!
//! Two groups own a campaign: the control state what is said of its delivery, the ledger its budgets. A request first
//! looks whether it was answered before; then the ledger is asked, whose wishes hold absolute amounts and repeat safely;
//! then one entry of the control state changes delivery and keeps the receipt. A request that ends between the two is
//! sent again by its client and does both again.
//!
//! The answer names the delivery version. Whoever wants to know that it is in force everywhere waits here: members say
//! what they use.

use std::sync::Arc;
use std::time::Duration;

use gavel_member::{clock, transport};
use gavel_proto::limits::{CAMPAIGN_WAIT_MS_MAX, INTERNAL_MESSAGE_BYTES_MAX, STRING_BYTES_MAX};
use gavel_proto::wire;
use gavel_proto::wire::campaign_service_server::CampaignService;
use gavel_proto::wire::ledger_service_client::LedgerServiceClient;
use prost::Message;
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

use super::{Leader, LedgerVoter, NotProposed, Voter};
use crate::catalogue::Catalogue;
use crate::convert::campaign::{Wishes, merged, state_of, wishes};
use crate::convert::{command, delivery};
use crate::state::EXISTS_DIFFERENT;
use crate::state::command::PublishDelivery;
use crate::state::types::Outcome;

/// Campaigns of one page when nothing is said.
const PAGE_DEFAULT: usize = 100;
/// Campaigns of one answer.
const PAGE_MAX: usize = 1_000;
/// Bytes of one answer's campaigns, after which the page ends: with one more, of all its ad groups, it is a message.
const ANSWER_BYTES: usize = INTERNAL_MESSAGE_BYTES_MAX / 2;
/// Longest request id: the command's has a prefix.
const REQUEST_ID_BYTES_MAX: usize = STRING_BYTES_MAX / 2;
/// Longest wait until a version is in force.
const WAIT_MAX: Duration = Duration::from_millis(CAMPAIGN_WAIT_MS_MAX as u64);
/// Between two looks at who lives.
const LOOK: Duration = Duration::from_millis(200);
/// The ledger's leader waits 3 s itself.
const LEDGER_TIMEOUT: Duration = Duration::from_millis(3_500);
/// Its entry is applied here, too, within a moment.
const APPLIED_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers operators and routers about campaigns.
pub struct CampaignEndpoint {
    voter: Arc<Voter>,
    books: Arc<LedgerVoter>,
    /// Budgets are merged with what the ledger holds, so one request at a time changes some.
    merging: Mutex<()>,
}

#[tonic::async_trait]
impl CampaignService for CampaignEndpoint {
    async fn list(&self, request: Request<wire::CampaignQuery>) -> Result<Response<wire::CampaignList>, Status> {
        let query = request.into_inner();
        self.voter.check_cluster(&query.cluster_id)?;
        if let Some(address) = self.elsewhere()? {
            return Ok(Response::new(wire::CampaignList { leader_address: address, ..Default::default() }));
        }
        let limit = if query.limit == 0 { PAGE_DEFAULT } else { query.limit as usize };
        if limit > PAGE_MAX || query.campaigns.len() > PAGE_MAX {
            return Err(Status::invalid_argument(format!("at most {PAGE_MAX} campaigns in one answer")));
        }
        self.voter.linearize().await?;
        let catalogue = self.catalogue()?;
        let (applied, books) = (self.voter.machine.applied(), self.books.machine.applied());
        let unix_s = i64::try_from(clock::wall_ms() / 1_000).unwrap_or(i64::MAX);
        let shown = |campaign: &wire::Campaign| state_of(campaign, &applied.state, &books.state, unix_s);
        let (campaigns, more) = if query.campaigns.is_empty() {
            let behind = catalogue.campaigns.range(query.after.saturating_add(1)..);
            page(behind.map(|(_, campaign)| shown(campaign)), limit)
        } else {
            let known = |id: &u64| catalogue.campaigns.get(id).ok_or_else(|| unknown(*id, &catalogue));
            let named = query.campaigns.iter().map(known).collect::<Result<Vec<_>, _>>()?;
            let (campaigns, more) = page(named.into_iter().map(shown), PAGE_MAX);
            if more {
                return Err(Status::invalid_argument("the answer would be too large: ask for fewer campaigns at once"));
            }
            (campaigns, false)
        };
        Ok(Response::new(wire::CampaignList {
            leader_address: String::new(),
            campaigns,
            version: applied.state.delivery.version,
            generation: catalogue.generation,
            more,
        }))
    }

    async fn update(&self, request: Request<wire::CampaignUpdates>) -> Result<Response<wire::CampaignUpdated>, Status> {
        let request = request.into_inner();
        self.voter.check_cluster(&request.cluster_id)?;
        if let Some(address) = self.elsewhere()? {
            return Ok(Response::new(named(address)));
        }
        if request.request_id.is_empty() || request.request_id.len() > REQUEST_ID_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "request_id must have 1 to {REQUEST_ID_BYTES_MAX} bytes: the same one for the same wish"
            )));
        }
        // A new leader may not have applied the receipt of the one before it.
        self.voter.linearize().await?;
        let catalogue = self.catalogue()?;
        let wanted = wishes(&request.updates, &catalogue).map_err(Status::invalid_argument)?;
        let command = command_of(&request.request_id, &wanted);
        let version = match self.answered(&command)? {
            Some(version) => version,
            None => {
                self.set_budgets(&wanted, &catalogue).await?;
                match self.publish(command).await? {
                    Ok(version) => version,
                    Err(address) => return Ok(Response::new(named(address))),
                }
            }
        };
        let wait = Duration::from_millis(request.wait_ms.into()).min(WAIT_MAX);
        let committed = clock::now_us();
        let behind = self.behind(version, wait).await;
        Ok(Response::new(wire::CampaignUpdated {
            leader_address: String::new(),
            version,
            effective: behind.is_empty(),
            behind,
            waited_us: clock::now_us().0.saturating_sub(committed.0),
        }))
    }
}

impl CampaignEndpoint {
    /// The endpoint of a voter.
    #[must_use]
    pub fn new(voter: Arc<Voter>, books: Arc<LedgerVoter>) -> Self {
        Self { voter, books, merging: Mutex::default() }
    }

    /// The voter that leads, when it is another.
    fn elsewhere(&self) -> Result<Option<String>, Status> {
        match self.voter.leader() {
            Leader::Own => Ok(None),
            Leader::Other { address, .. } => Ok(Some(address)),
            Leader::Unknown => Err(Status::unavailable("no leader")),
        }
    }

    /// The campaigns of the generation that serves.
    fn catalogue(&self) -> Result<Arc<Catalogue>, Status> {
        let active = self.voter.machine.applied().state.active_generation;
        let active = active.ok_or_else(|| Status::failed_precondition("no catalogue serves: load one first"))?;
        let held = self.voter.catalogue.borrow().clone().filter(|catalogue| catalogue.generation == active);
        held.ok_or_else(|| {
            Status::unavailable(format!("the campaigns of generation {active} are being read: try again"))
        })
    }

    /// What was answered to the same request before.
    fn answered(&self, command: &wire::Command) -> Result<Option<u64>, Status> {
        let parsed = command::parse(command).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let applied = self.voter.machine.applied();
        match applied.state.receipts.get(&parsed.id) {
            None => Ok(None),
            Some(receipt) if receipt.digest != parsed.digest => Err(exists()),
            Some(receipt) => match &receipt.outcome {
                Outcome::Done(version) => Ok(Some(*version)),
                Outcome::Refused(reason) => Err(refused(reason)),
            },
        }
    }

    /// Has the ledger hold what is wanted.
    async fn set_budgets(&self, wanted: &Wishes, catalogue: &Catalogue) -> Result<(), Status> {
        if wanted.budgets.is_empty() {
            return Ok(());
        }
        let _merging = self.merging.lock().await;
        // What budgets are merged with is this voter's copy of the ledger: it must have what was set over others. To a
        // question without wishes the ledger's leader says how far that is.
        let newest = self.ask_ledger(Vec::new()).await?;
        self.wait_for_books(newest.log_index).await?;
        let wishes: Vec<wire::SetBudgets> = {
            let books = self.books.machine.applied();
            wanted.budgets.iter().map(|(id, given)| merged(*id, given, &books.state, catalogue)).collect()
        };
        let ids: Vec<u64> = wishes.iter().map(|wish| wish.campaign_id).collect();
        let wish = |budgets| wire::LedgerWish { body: Some(wire::ledger_wish::Body::SetBudgets(budgets)) };
        let reply = self.ask_ledger(wishes.into_iter().map(wish).collect()).await?;
        for (id, verdict) in ids.iter().zip(&reply.verdicts) {
            if verdict.answer() != wire::LedgerAnswer::LedgerDone {
                return Err(refused_budget(*id, &verdict.reason));
            }
        }
        self.wait_for_books(reply.log_index).await
    }

    /// Has wishes carried out by the ledger's leader.
    async fn ask_ledger(&self, wishes: Vec<wire::LedgerWish>) -> Result<wire::LedgerReply, Status> {
        let request = wire::LedgerRequest { cluster_id: self.voter.own.cluster_id.clone(), wishes };
        let address = match self.books.core.leader() {
            Leader::Own => self.voter.address.clone(),
            Leader::Other { address, .. } => address,
            Leader::Unknown => return Err(Status::unavailable("the ledger has no leader")),
        };
        let channel = transport::control_channel(&address).map_err(|e| Status::internal(e.to_string()))?;
        let mut ledger = LedgerServiceClient::new(channel).max_decoding_message_size(transport::MESSAGE_BYTES_MAX);
        let asked = tokio::time::timeout(LEDGER_TIMEOUT, ledger.post(request)).await;
        let reply = asked.map_err(|_| Status::unavailable("the ledger does not answer: send the same again"))??;
        let reply = reply.into_inner();
        if !reply.leader_address.is_empty() {
            return Err(Status::unavailable("the ledger changes its leader: send the same again"));
        }
        Ok(reply)
    }

    /// Returns once this voter's copy of the ledger has an entry.
    async fn wait_for_books(&self, index: u64) -> Result<(), Status> {
        let mut progress = self.books.machine.progress();
        let applied = tokio::time::timeout(APPLIED_TIMEOUT, progress.wait_for(|p| p.index >= index)).await;
        match applied {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Status::unavailable("this voter lags: send the same again")),
        }
    }

    /// Enters the change; the version in which it counts, or who leads.
    async fn publish(&self, command: wire::Command) -> Result<Result<u64, String>, Status> {
        match self.voter.propose(command).await {
            Ok(written) => match written.data {
                Outcome::Done(version) => Ok(Ok(version)),
                Outcome::Refused(reason) => Err(refused(&reason)),
            },
            Err(NotProposed::Elsewhere(Leader::Other { address, .. })) => Ok(Err(address)),
            Err(NotProposed::Elsewhere(Leader::Own | Leader::Unknown)) => Err(Status::unavailable("no leader")),
            Err(NotProposed::Status(status)) => Err(status),
        }
    }

    /// Members that do not use a version, at the latest after `wait`.
    async fn behind(&self, version: u64, wait: Duration) -> Vec<u64> {
        let began = clock::now_us();
        let elapsed = || Duration::from_micros(clock::now_us().0.saturating_sub(began.0));
        let mut heard = self.voter.followers.subscribe();
        loop {
            heard.borrow_and_update();
            let behind = self.voter.followers.effect(&self.voter.machine.applied().state, version).behind;
            if behind.is_empty() || elapsed() >= wait {
                if wait > Duration::ZERO {
                    metrics::histogram!("gavel_control_delivery_effect_us").record(elapsed().as_micros() as f64);
                }
                return behind;
            }
            // Whichever comes first; who lives may have changed without a word.
            let left = wait.saturating_sub(elapsed()).min(LOOK);
            let _ = tokio::time::timeout(left, heard.changed()).await;
        }
    }
}

/// The first campaigns, as many as were asked for and one answer has room for, and whether there are more.
fn page(mut campaigns: impl Iterator<Item = wire::CampaignState>, limit: usize) -> (Vec<wire::CampaignState>, bool) {
    let (mut page, mut bytes) = (Vec::new(), 0);
    while page.len() < limit && bytes < ANSWER_BYTES {
        let Some(campaign) = campaigns.next() else { return (page, false) };
        bytes += campaign.encoded_len();
        page.push(campaign);
    }
    let more = campaigns.next().is_some();
    (page, more)
}

fn command_of(request_id: &str, wanted: &Wishes) -> wire::Command {
    // A change that says nothing goes with budgets alone; it is part of what tells a retry.
    let wish = PublishDelivery { changes: wanted.changes.clone(), generation: 0, beside: wanted.beside.clone() };
    wire::Command {
        command_id: format!("campaigns/{request_id}"),
        proposed_ms: clock::wall_ms(),
        body: Some(wire::command::Body::PublishDelivery(delivery::wish_to_wire(&wish))),
    }
}

fn named(leader_address: String) -> wire::CampaignUpdated {
    wire::CampaignUpdated { leader_address, ..wire::CampaignUpdated::default() }
}

fn unknown(id: u64, catalogue: &Catalogue) -> Status {
    Status::not_found(format!(
        "campaign {id} is not in the catalogue that serves (generation {})",
        catalogue.generation
    ))
}

fn exists() -> Status {
    Status::already_exists("this request id was used for another wish: take a new one")
}

/// A refusal of the state machine: its first word is the code.
fn refused(reason: &str) -> Status {
    if reason == EXISTS_DIFFERENT {
        return exists();
    }
    match reason.split_once(": ") {
        Some(("invalid_argument", rest)) => Status::invalid_argument(rest),
        Some(("resource_exhausted", rest)) => Status::resource_exhausted(rest),
        Some((_, rest)) => Status::failed_precondition(rest),
        None => Status::failed_precondition(reason),
    }
}

fn refused_budget(id: u64, reason: &str) -> Status {
    let more = match reason {
        "below_committed" => "more is charged and leased than that: see `gavel ctl ledger balances`",
        reason => reason,
    };
    Status::failed_precondition(format!("campaign {id}: the budget is refused: {more}"))
}

#[cfg(test)]
mod tests {
    use gavel_proto::limits::AD_GROUPS_MAX;

    use super::*;

    #[test]
    fn a_page_ends_with_its_limit_or_its_bytes() {
        let group = wire::AdGroupState { ad_group_id: u64::MAX, bid_micros: u64::MAX, ..Default::default() };
        let state = |groups| wire::CampaignState { ad_groups: vec![group; groups], ..Default::default() };
        let of = |groups: usize, campaigns: usize, limit| {
            let (page, more) = page(std::iter::repeat_n(state(groups), campaigns), limit);
            (page.len(), more)
        };
        assert_eq!([of(0, 5, 5), of(0, 5, 4), of(0, 0, 4)], [(5, false), (4, true), (0, false)]);
        let (shown, more) = of(AD_GROUPS_MAX, PAGE_MAX, PAGE_MAX);
        assert!(more && (100..PAGE_MAX).contains(&shown), "{shown}");
        let page = wire::CampaignList { campaigns: vec![state(AD_GROUPS_MAX); shown], ..Default::default() };
        assert!(page.encoded_len() < INTERNAL_MESSAGE_BYTES_MAX);
    }
}
