//! What every store must do, as one suite that each implementation runs.
//!
//! A specification is a function over the trait; [`members_contract`] and [`sessions_contract`] list them all and make a
//! test of each. All calls take the time from the caller, so a test moves it by adding to it.

pub(super) mod directory;
pub(super) mod epochs;
pub(super) mod key_bundle;
pub(super) mod members;
pub(super) mod merge;
pub(super) mod model;
pub(super) mod sealing;
pub(super) mod sessions;
pub(super) mod shared;

use std::time::Duration;

use aws_lc_rs::digest;

use super::{CodeHash, NewSession, RefreshHash, RefreshUse, SealedKey, Session};
use crate::clock::Timestamp;
use crate::ids::{AppId, MemberId, OpenId, SessionId};

/// When each test begins.
pub(super) const START: Timestamp = Timestamp::from_secs(1_763_688_000);
pub(super) const GRACE: Duration = Duration::from_secs(30);
pub(super) const REFRESH_TTL: Duration = Duration::from_secs(30 * 86_400);
pub(super) const SESSION_TTL: Duration = Duration::from_secs(180 * 86_400);
pub(super) const ACCESS_TTL: Duration = Duration::from_secs(7200);

/// `START` plus so many seconds.
pub(super) fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

pub(super) fn app(id: &str) -> AppId {
    AppId::parse(id).unwrap()
}

pub(super) fn person(id: &str) -> OpenId {
    OpenId::parse(id).unwrap()
}

pub(super) fn token(text: &str) -> RefreshHash {
    RefreshHash(sha256(text))
}

pub(super) fn code(text: &str) -> CodeHash {
    CodeHash(sha256(text))
}

pub(super) fn key(sealed: &str, exchanged_at: Timestamp) -> SealedKey {
    SealedKey { sealed: sealed.into(), exchanged_at }
}

/// A login of `name` (in app wx1) at `now`: first refresh token `name-0`, code `name`, key `name`.
pub(super) fn login(name: &str, now: Timestamp) -> NewSession {
    NewSession {
        session: Session {
            session_id: SessionId::new_v7(now),
            member_id: MemberId::parse(&format!("member-of-{name}")).unwrap(),
            appid: app("wx1"),
            openid: person(name),
            created_at: now,
            expires_at: now.plus(SESSION_TTL),
        },
        refresh: token(&format!("{name}-0")),
        refresh_expires_at: now.plus(REFRESH_TTL),
        code: code(name),
        code_expires_at: now.plus(Duration::from_secs(300)),
        is_new: true,
        session_key: Some(key(name, now)),
        access_until: now.plus(ACCESS_TTL),
        max_sessions: None,
    }
}

/// A refresh at `now` with the usual times.
pub(super) fn refresh(now: Timestamp) -> RefreshUse {
    RefreshUse { now, grace: GRACE, refresh_expires_at: now.plus(REFRESH_TTL), revoked_until: now.plus(ACCESS_TTL) }
}

fn sha256(text: &str) -> [u8; 32] {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().try_into().unwrap()
}

/// Makes a test of each specification of [`Members`](super::Members). `$open` gives `(Arc<dyn Members>, guard)`.
macro_rules! members_contract {
    ($open:expr) => {
        $crate::store::contract::each!($open, members:
            the_first_login_registers_and_the_next_one_finds,
            one_person_in_two_apps_is_two_members,
            a_forgotten_profile_is_empty_and_the_member_is_the_same,
            of_thirty_first_logins_at_once_one_is_new_and_all_get_one_member,
            of_many_logins_at_once_each_gets_its_own_member,
            a_unionid_is_kept_when_the_next_login_does_not_tell_it,
            a_unionid_that_changed_replaces_the_old_one,
            a_login_that_arrives_late_does_not_turn_the_time_of_the_last_one_back,
            a_profile_changes_where_it_is_given_and_stays_elsewhere,
            a_phone_number_is_set_and_touches_nothing_else,
            an_erased_member_is_gone_and_comes_back_as_another_one,
            the_store_of_members_answers,
        );
        $crate::store::contract::each!($open, directory:
            roles_of_operators_and_of_the_hook_stand_together,
            what_the_hook_said_is_replaced_by_what_it_says_next,
            a_ban_stands_with_its_reason_until_it_is_lifted,
            members_are_listed_page_by_page_newest_first,
            members_are_listed_by_app_by_role_and_by_ban,
            members_are_found_by_openid_unionid_and_phone,
            members_are_found_by_the_beginning_of_their_nickname_also_where_thousands_have_the_same,
            somebody_who_was_erased_is_in_no_list,
            a_count_goes_no_further_than_asked,
        );
        $crate::store::contract::each!($open, merge:
            without_merging_one_unionid_is_two_members,
            who_logs_in_with_a_second_app_is_the_same_member,
            the_older_of_two_members_survives_and_the_other_is_its_alias,
            a_merge_loses_neither_roles_nor_a_ban,
            a_member_known_by_three_apps_has_no_chain_of_aliases,
            every_call_takes_an_alias_for_the_member,
            a_merged_member_is_listed_in_each_of_the_apps_and_once_among_all,
            of_thirty_logins_at_once_in_three_apps_all_are_one_member,
            erasing_a_merged_member_erases_every_identity,
        );
    };
}

/// Makes a test of each specification of [`Sessions`](super::Sessions). `$open` gives `(Arc<dyn Sessions>, guard)`.
macro_rules! sessions_contract {
    ($open:expr) => {
        $crate::store::contract::each!($open, sessions:
            an_opened_session_is_found_with_its_code_and_its_key,
            a_session_ends_at_its_end,
            a_code_is_remembered_until_it_may_be_forgotten_and_can_then_come_back,
            a_session_that_exists_already_is_refused_and_nothing_of_it_is_written,
            a_refresh_token_rotates_again_and_again,
            a_repeated_refresh_yields_the_same_successor_until_that_is_used,
            a_repeated_refresh_after_the_grace_is_reuse_and_ends_the_session,
            a_token_of_any_earlier_generation_is_reuse,
            of_fifty_refreshes_at_once_all_get_one_successor,
            of_many_successors_raced_for_one_token_one_stands,
            a_clock_that_was_set_back_is_no_reuse,
            a_refresh_token_never_outlives_its_session,
            an_expired_or_unknown_refresh_token_is_unknown,
            a_refresh_token_tells_its_session_without_being_used,
            an_ended_session_is_not_found_and_does_not_refresh,
            ending_an_unknown_session_revokes_its_tokens_all_the_same,
            a_revocation_lives_until_its_end_and_never_gets_shorter,
            a_revocation_outlasts_the_access_tokens_of_its_session,
            a_session_is_prolonged_while_it_lives_and_never_past_its_end,
            an_ended_session_is_told_by_its_refresh_tokens,
            whose_a_session_was_is_known_until_it_would_have_expired,
            ending_all_spares_one_session_that_is_named,
            ending_all_spans_the_live_sessions_of_one_member_in_one_app,
            a_late_exchange_never_replaces_a_newer_key,
            the_same_key_again_does_not_drive_the_one_before_it_out,
            keys_can_be_kept_without_a_session_and_be_erased,
            an_access_token_is_kept_for_each_app_and_line,
            a_sweep_takes_nothing_that_has_not_expired,
            the_store_of_sessions_answers,
        );
        $crate::store::contract::each!($open, epochs:
            the_oldest_session_ends_when_there_are_too_many,
            of_twenty_logins_at_once_no_more_than_allowed_stay,
            the_end_of_a_member_spans_all_apps_and_spares_a_later_login,
            the_end_of_an_app_spares_other_apps_and_later_logins,
            the_end_of_an_app_takes_thousands_of_sessions,
            an_epoch_never_moves_back_and_is_forgotten_at_its_end,
            whoever_is_about_to_forget_a_notice_is_told_how_long_it_lasts,
            of_two_changes_of_roles_the_one_that_arrives_last_counts,
            an_end_spares_no_session_that_was_opened_where_the_clock_is_ahead,
            sessions_are_listed_page_by_page_newest_first,
            sessions_are_counted_no_further_than_asked,
        );

        $crate::store::contract::each!($open, sealing:
            everybody_who_has_keys_is_found_page_by_page,
            a_key_that_was_sealed_anew_takes_the_place_of_the_old_record,
            a_record_that_is_gone_is_not_brought_back,
        );
        $crate::store::contract::each!($open, key_bundle:
            the_sealed_keys_are_replaced_by_who_knows_those_before,
            of_twenty_who_replace_the_sealed_keys_at_once_one_does,
        );

        #[test]
        fn any_sequence_of_calls_does_what_the_model_does() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (store, _guard) = runtime.block_on($open);
            $crate::store::contract::model::agrees(&runtime, &*store);
        }
    };
}

/// Makes a test of each specification of [`Shared`](super::shared::Shared). `$open` gives `(Arc<dyn Shared>, guard)`.
macro_rules! shared_contract {
    ($open:expr) => {
        $crate::store::contract::each!($open, shared:
            of_thirty_claims_at_once_one_is_granted,
            a_claim_is_released_by_its_owner_alone,
            a_value_is_taken_once,
            what_is_charged_adds_up,
        );
    };
}

macro_rules! each {
    ($open:expr, $file:ident: $($specification:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $specification() {
            let (store, _guard) = $open.await;
            $crate::store::contract::$file::$specification(store).await;
        }
    )*};
}

pub(super) use {each, members_contract, sessions_contract, shared_contract};
