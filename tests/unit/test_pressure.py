from app.operations_pressure import describe_throttled


def test_what_living_producers_throttle_is_said_once():
    held = {"throttled": {"slow": "P95 about 181 ms, limit 100 ms"}}
    producers = [
        {"is_alive": True, "notes": held},
        {"is_alive": True, "notes": {**held}},
        {"is_alive": True, "notes": {}},
        {"is_alive": False, "notes": {"throttled": {"gone": "nobody knows"}}},
    ]
    assert describe_throttled(producers) == ["slow: P95 about 181 ms, limit 100 ms"]
