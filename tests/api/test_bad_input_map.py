"""Where each row of reliability.md, 4.1, is tested: a row whose test is gone fails here.

Where api.md says otherwise it wins; such rows say so. Rows of what isn't built yet (schedules) join
with it.
"""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

# Row: the tests, as file::function.
ROWS: dict[str, list[str]] = {
    # Auth
    "tokens: none, alg, claims, exp, headers, typ, duplicates, kid, shape, size, iat": [
        "api/test_token_table.py::test_tokens_of_the_table",
        "api/test_auth_keys.py::test_a_token_elsewhere_than_in_the_one_header_is_none",
    ],
    "unknown kid x 10,000: no signature, one fetch in 30 s": [
        "api/test_auth_keys.py::test_ten_thousand_unknown_kids_cost_no_signature_and_no_memory",
        "loops/test_published.py::test_who_misses_a_key_causes_one_fetch_and_then_none_for_a_while",
        "journeys/test_jwks.py::test_a_new_key_is_found_and_a_flood_of_names_fetches_once",
    ],
    "JWKS: weak, enc, wrong kty, oct": [
        "journeys/test_jwks.py::test_keys_that_are_not_for_tokens_are_passed_over",
        "test_keys.py::test_of_a_published_set_what_is_not_for_tokens_is_passed_over",
    ],
    "JWKS: 10 MB, redirect, http, private addresses": [
        "egress/test_pinned.py::test_what_is_too_large_is_given_up",
        "egress/test_pinned.py::test_a_redirect_is_not_followed",
        "egress/test_pinned.py::test_even_an_operator_does_not_get_everywhere",
        "test_access_settings.py::test_a_key_set_is_fetched_by_https_but_for_this_machine",
    ],
    "roles: 403; foreign objects: 404, the same as unknown": [
        "api/test_matrix.py::test_every_role_gets_what_the_contract_says_of_every_call",
        "api/test_matrix.py::test_what_is_foreign_is_answered_as_what_is_unknown",
        "api/test_workflow_bodies.py::test_a_job_by_itself_depends_on_ids",
    ],
    # Submit
    "content types, codings": [
        "api/test_porter.py::test_only_plain_json_is_taken",
        "api/test_porter.py::test_a_body_without_a_type_is_415",
    ],
    "a gzip bomb: api.md takes no Content-Encoding at all, 415": [
        "api/test_porter.py::test_only_plain_json_is_taken"
    ],
    "lengths, chunks, frames": [
        "api/test_bad_input.py::test_a_body_in_a_bad_frame_is_refused_and_what_follows_is_not_read",
        "api/test_porter.py::test_a_body_over_the_limit_is_413_before_it_is_sent",
        "api/test_porter.py::test_a_chunked_body_over_the_limit_is_413",
        "api/test_porter.py::test_a_broken_chunk_is_400",
    ],
    "slow heads, slow bodies, idle connections, too many": [
        "api/test_porter.py::test_headers_that_never_end_are_not_waited_for",
        "api/test_porter.py::test_a_slow_body_is_408_and_the_connection_is_closed",
        "api/test_porter.py::test_an_idle_connection_is_closed_after_a_while",
        "api/test_connection.py::test_beyond_the_limit_a_newcomer_is_told_so_and_closed",
    ],
    "not JSON, depth, NUL, integers, unknown fields, bounds, names": [
        "api/test_bad_input.py::test_a_bad_submission_is_refused",
        "api/test_bad_input.py::test_a_tower_of_lists_is_refused_by_its_height_or_its_weight",
        "api/test_submissions.py::test_a_bad_field_is_named",
    ],
    "unknown kinds: api.md accepts them, for remote workers": [
        "api/test_submissions.py::test_a_known_kinds_payload_is_checked_and_an_unknown_ones_is_not"
    ],
    "graphs: cycles, twins, unknown and foreign parents, sizes": [
        "api/test_workflow_bodies.py::test_faults_of_the_graph_are_refused_with_pointers",
        "domain/test_graph.py::test_a_cycle_is_told_with_its_path",
        "domain/test_graph.py::test_parents_are_others_who_are_there_each_once",
        "domain/test_graph.py::test_no_more_is_told_than_an_answer_names_and_limits_are_kept",
        "domain/test_graph.py::test_the_largest_graph_is_looked_at_in_no_time",
    ],
    "batches: api.md takes 10,000 and answers 422 beyond; all or nothing": [
        "api/test_porter.py::test_a_bad_batch_names_all_that_is_wrong",
        "api/test_submissions.py::test_twins_within_one_request_are_named_and_only_they",
    ],
    "Idempotency-Key: api.md answers a malformed one with 400": [
        "api/test_porter.py::test_what_is_no_idempotency_key_is_400",
        "commands/test_submit_keys.py::test_another_body_under_the_same_key_is_refused",
    ],
    # Read, list, administer
    "ids, limits, cursors, filters": [
        "api/test_porter.py::test_an_id_of_another_form_is_404",
        "api/test_queries.py::test_what_cannot_be_read_is_refused",
        "api/test_queries.py::test_a_cursor_that_we_did_not_make_is_refused",
        "api/test_queries.py::test_a_cursor_of_another_query_or_other_queues_is_refused",
        "api/test_lists.py::test_every_list_refuses_what_it_does_not_know",
    ],
    "methods (api.md: HEAD and OPTIONS are 405), overrides, paths, hosts, origins, headers": [
        "api/test_porter.py::test_another_method_is_405_and_names_those_that_are",
        "api/test_bad_input.py::test_odd_paths_lead_nowhere",
        "api/test_bad_input.py::test_hosts_origins_and_overrides_change_nothing",
    ],
    # Webhooks and mail
    "URLs, addresses, rebinding, redirects, answers, headers": [
        "api/test_notices.py::test_bad_lists_are_refused_with_their_place",
        "egress/test_guard.py::test_an_address_that_is_not_public_is_refused",
        "egress/test_guard.py::test_a_bad_url_is_refused_without_being_repeated",
        "egress/test_guard.py::test_a_header_of_the_connection_is_refused",
        "egress/test_guard.py::test_a_header_value_that_would_break_out_is_refused",
    ],
    "mail addresses": ["domain/test_address.py::test_what_is_no_single_plain_address_is_refused"],
    # Platform (4.2)
    "rate limits: 429, Retry-After, shared, local without Redis": [
        "api/test_rates.py::test_answers_tell_what_is_left_and_a_refusal_when_to_come_again",
        "api/test_rates.py::test_replicas_share_a_budget_also_under_fire",
        "commands/test_rate_limiter.py::test_without_redis_each_replica_goes_by_the_same_rule",
    ],
}


def functions(path: Path) -> set[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_tables_has_its_tests(row: str) -> None:
    for place in ROWS[row]:
        file, _, name = place.partition("::")
        assert name in functions(TESTS / file), f"{place} is gone: who tests {row!r} now?"
