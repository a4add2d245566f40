import json
from ipaddress import ip_network

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.errors import InvalidPolicyError
from ai_proxy.core.limits import Allowance
from ai_proxy.core.policy import Cors, Policy
from ai_proxy.core.policy_document import POLICY_SCHEMA, parse_policy, policy_document

limits = st.none() | st.integers(0, 10**12)
addresses = st.ip_addresses().map(lambda address: getattr(address, "ipv4_mapped", None) or address)
networks = st.lists(addresses.map(lambda address: ip_network(f"{address}")), max_size=3).map(tuple)
allowances = st.builds(Allowance, limits, limits, limits, limits)
policies = st.builds(
    Policy,
    allowlist=networks,
    cors=st.builds(
        Cors,
        origins=st.sampled_from([(), ("*",), ("https://a.example", "http://localhost:3000")]),
        headers=st.sampled_from([("*",), ("content-type", "authorization")]),
        max_age=st.integers(0, 86400),
    ),
    per_key=allowances,
    per_ip=allowances,
    trusted_proxies=networks,
    max_request_mb=st.integers(0, 1000),
)
NAMES = ["allowlist", "cors", "per_ip", "rpm", "origins", "x"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["allowlist", "cors", "per_ip", "rpm", "origins", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(policies)
def test_a_policy_survives_being_written_and_read(policy: Policy) -> None:
    document = json.loads(json.dumps(policy_document(policy)))

    assert parse_policy(document) == policy
    jsonschema.validate(document, POLICY_SCHEMA)


@given(anything)
def test_what_the_schema_refuses_is_refused(document: object) -> None:
    if jsonschema.Draft202012Validator(POLICY_SCHEMA).is_valid(document):
        return

    with pytest.raises(InvalidPolicyError):
        parse_policy(document)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(POLICY_SCHEMA)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the policy: must be an object, not []"),
        ({"allow_list": []}, "allow_list: unknown; did you mean 'allowlist'?"),
        ({"per_ip": {"rpm": "many"}}, "per_ip.rpm: must be a whole number, not 'many'"),
        ({"per_ip": {"rpm": True}}, "per_ip.rpm: must be a whole number, not True"),
        ({"per_key": {"tpm": -1}}, "per_key.tpm: must be between 0 and 1000000000000, not -1"),
        ({"allowlist": ["10.0.0.0/33"]}, "allowlist[0]: '10.0.0.0/33' does not appear to be"),
        ({"allowlist": ["10.0.0.1/8"]}, "allowlist[0]: 10.0.0.1/8 has host bits set"),
        ({"allowlist": ["example.com"]}, "allowlist[0]: 'example.com' is not of the right form"),
        (
            {"cors": {"origins": ["https://a.example/path"]}},
            "is not an origin; write it as https://chat.example.com",
        ),
        ({"cors": {"origins": ["null"]}}, "is not an origin"),
        ({"cors": {"origins": ["*"], "credentials": True}}, "cors.credentials: not with the origin *"),
        ({"cors": {"methods": ["GET\r\nX: y"]}}, "cors.methods[0]"),
        ({"cors": {"headers": ["x-ok\n"]}}, "cors.headers[0]"),
    ],
)
def test_what_is_wrong_is_said_in_words(document: object, message: str) -> None:
    with pytest.raises(InvalidPolicyError) as refused:
        parse_policy(document)

    assert message in refused.value.detail


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidPolicyError) as refused:
        parse_policy({"allowlist": "all", "max_request_mb": 1.5, "tls": True})

    assert len(refused.value.detail.splitlines()) == 3


def test_what_is_left_out_is_as_by_default() -> None:
    assert parse_policy({}) == Policy()
