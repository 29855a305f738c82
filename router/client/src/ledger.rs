//! How does a program ask the ledger?
//!
//! Writes go to whichever voter leads the ledger's group; everything is idempotent, so what is not answered is sent
//! again as it was.

use crate::transport::{self, ClientError};
use gavel_proto::limits::INTERNAL_MESSAGE_BYTES_MAX;
use gavel_proto::wire::ledger_service_client::LedgerServiceClient;
use gavel_proto::wire::ledger_wish::Body;
use gavel_proto::wire::{
    BalancesReply, BalancesRequest, JournalRequest, LedgerReply, LedgerRequest, LedgerVerdict, LedgerWish, SealedRefund,
};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tonic::transport::Channel;

/// How long one voter may take for one try.
const TRY_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two tries: an election takes about two seconds.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Tries before the request is given up.
const TRIES_MAX: usize = 60;

/// What came of the tries before the one that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tries {
    /// None was entered: a duplicate was entered by somebody else, or in an earlier call.
    Answered,
    /// One at least had no answer and may have been entered: a duplicate may be its own.
    Unanswered,
}

/// Asks the ledger of one cluster.
#[derive(Clone, Debug)]
pub struct LedgerClient {
    cluster_id: String,
    addresses: Vec<String>,
    leader: Option<String>,
}

impl LedgerClient {
    /// A client of the cluster whose voters are at `addresses`.
    ///
    /// # Errors
    /// When there is no address.
    pub fn new(cluster_id: &str, addresses: Vec<String>) -> Result<Self, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::Address(String::new()));
        }
        Ok(Self { cluster_id: cluster_id.to_owned(), addresses, leader: None })
    }

    /// Has the wishes entered once, and tells what came of each.
    ///
    /// # Errors
    /// When no leader was found for a long while, or the request is wrong.
    pub async fn post(&mut self, wishes: Vec<Body>) -> Result<LedgerReply, ClientError> {
        Ok(self.ask(wishes).await?.0)
    }

    /// The answer, and whether a try before it may have been entered without one.
    async fn ask(&mut self, wishes: Vec<Body>) -> Result<(LedgerReply, Tries), ClientError> {
        let wishes = wishes.into_iter().map(|body| LedgerWish { body: Some(body) }).collect();
        let request = LedgerRequest { cluster_id: self.cluster_id.clone(), wishes };
        let (mut last, mut tries) = (String::new(), Tries::Answered);
        for turn in 0..TRIES_MAX {
            let address = self.leader.take().unwrap_or_else(|| self.addresses[turn % self.addresses.len()].clone());
            let mut client = client(&address)?;
            match tokio::time::timeout(TRY_TIMEOUT, client.post(request.clone())).await {
                Ok(Ok(reply)) => {
                    let reply = reply.into_inner();
                    if reply.leader_address.is_empty() {
                        self.leader = Some(address);
                        return Ok((reply, tries));
                    }
                    last = format!("{address} does not lead");
                    self.leader = Some(reply.leader_address).filter(|leader| *leader != address);
                    if self.leader.is_some() {
                        continue;
                    }
                }
                Ok(Err(status)) if status.code() == tonic::Code::InvalidArgument => return Err(status.into()),
                // A voter may have had it entered and not lived, or led, to say so.
                Ok(Err(status)) => (last, tries) = (format!("{address}: {status}"), Tries::Unanswered),
                Err(_) => (last, tries) = (format!("{address}: no answer"), Tries::Unanswered),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Err(ClientError::Unreachable(last))
    }

    /// Has charges given back, by the tokens of their events; what came of each, in their order. At most 512 at once. The
    /// same again changes nothing and is answered as a duplicate; so is one whose first try was not answered in time, which
    /// the tries tell.
    ///
    /// # Errors
    /// When no leader was found for a long while, or there are too many.
    pub async fn refund(&mut self, refunds: Vec<SealedRefund>) -> Result<(Vec<LedgerVerdict>, Tries), ClientError> {
        let count = refunds.len();
        let (LedgerReply { verdicts, .. }, tries) = self.ask(refunds.into_iter().map(Body::Refund).collect()).await?;
        if verdicts.len() == count {
            return Ok((verdicts, tries));
        }
        Err(ClientError::Refused(format!("{} answers to {count} refunds", verdicts.len())))
    }

    /// The balances as one voter has them.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn balances_at(&self, address: &str, campaigns: Vec<u64>) -> Result<BalancesReply, ClientError> {
        let mut client = client(address)?;
        let mut whole = page(&mut client, address, &campaigns, 0).await?;
        while whole.next != 0 {
            let next = page(&mut client, address, &campaigns, whole.next).await?;
            whole = joined(whole, next);
        }
        Ok(whole)
    }

    /// The balances of the first voter that answers.
    ///
    /// # Errors
    /// When none does.
    pub async fn balances(&self, campaigns: Vec<u64>) -> Result<BalancesReply, ClientError> {
        let mut last = ClientError::Unreachable("no voter".to_owned());
        for address in &self.addresses {
            match self.balances_at(address, campaigns.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Copies the journal of a voter into a folder; the state that it leads to, as bytes.
    ///
    /// # Errors
    /// When the voter does not answer, or a file cannot be written.
    pub async fn copy_journal(&self, address: &str, folder: &Path) -> Result<Vec<u8>, ClientError> {
        let request = JournalRequest { cluster_id: self.cluster_id.clone() };
        let mut chunks = client(address)?.read_journal(request).await?.into_inner();
        let (mut state, mut open) = (Vec::new(), None::<(String, std::fs::File)>);
        while let Some(chunk) = chunks.message().await? {
            state.extend_from_slice(&chunk.state);
            if chunk.file.is_empty() {
                continue;
            }
            let path = folder.join(&chunk.file);
            let failed = |error| ClientError::File(path.clone(), error);
            // A name from elsewhere stays a name.
            if path.file_name().and_then(|name| name.to_str()) != Some(chunk.file.as_str()) {
                return Err(ClientError::Refused(format!("{:?} is no name of a journal's file", chunk.file)));
            }
            if open.as_ref().is_none_or(|(name, _)| *name != chunk.file) {
                open = Some((chunk.file.clone(), std::fs::File::create(&path).map_err(failed)?));
            }
            if let Some((_, file)) = &mut open {
                file.write_all(&chunk.data).map_err(failed)?;
            }
        }
        Ok(state)
    }
}

fn client(address: &str) -> Result<LedgerServiceClient<Channel>, ClientError> {
    let client = LedgerServiceClient::new(transport::channel(address)?);
    Ok(client.max_decoding_message_size(INTERNAL_MESSAGE_BYTES_MAX))
}

/// The balances from one campaign on, as far as they fit one answer.
async fn page(
    client: &mut LedgerServiceClient<Channel>,
    address: &str,
    campaigns: &[u64],
    from: u64,
) -> Result<BalancesReply, ClientError> {
    let request = BalancesRequest { campaigns: campaigns.to_vec(), from, limit: 0 };
    let silent = |_| ClientError::Unreachable(format!("{address}: no answer"));
    let reply = tokio::time::timeout(TRY_TIMEOUT, client.balances(request)).await.map_err(silent)??;
    Ok(reply.into_inner())
}

/// A page behind others. The digest came with the first; when entries came in between it says nothing.
fn joined(before: BalancesReply, page: BalancesReply) -> BalancesReply {
    let same = before.applied_index == page.applied_index;
    let state_digest = if same { before.state_digest } else { Vec::new() };
    let mut campaigns = before.campaigns;
    campaigns.extend(page.campaigns);
    BalancesReply { campaigns, state_digest, ..page }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::wire::CampaignBalance;

    #[test]
    fn pages_are_one_answer_whose_digest_holds_while_no_entry_came() {
        let page = |applied_index, campaign_id, next, state_digest: &[u8]| {
            let campaigns = vec![CampaignBalance { campaign_id, ..CampaignBalance::default() }];
            let state_digest = state_digest.to_vec();
            BalancesReply { applied_index, state_digest, campaigns, next, ..BalancesReply::default() }
        };
        let whole = joined(joined(page(7, 0, 3, b"x"), page(7, 3, 4, b"")), page(7, 4, 0, b""));
        assert_eq!(whole.campaigns.iter().map(|c| c.campaign_id).collect::<Vec<_>>(), [0, 3, 4]);
        assert_eq!((whole.next, whole.state_digest.as_slice()), (0, &b"x"[..]));
        let moved = joined(joined(page(7, 0, 3, b"x"), page(8, 3, 4, b"")), page(8, 4, 0, b""));
        assert_eq!((moved.applied_index, moved.state_digest.as_slice()), (8, &b""[..]));
    }
}
