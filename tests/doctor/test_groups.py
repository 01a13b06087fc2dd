from pathlib import Path

import pytest

from vitreous.doctor.groups import name_stem


@pytest.mark.parametrize(
    "name",
    [
        "IMG_0001", "IMG-20240101-0003", "DSC_0042", "DJI_0123", "MVIMG_20240101_120102",
        "PXL_20240101_120102345", "FB_IMG_1600000000001", "received_1234567890123456",
        "shutterstock_123456789", "AdobeStock_12345", "istockphoto-1234567", "pexels-photo-14321",
        "pexels-anna-smith-1234567", "gettyimages-12345", "Snapchat-123456789", "Snapchat-12345",
        "WhatsApp Image 2024-01-01 at 12.00.01", "WhatsApp Image 2024-01-01 at 12.00.01 (1)",
        "Screenshot 2024-01-01 at 10.11.12", "Screenshot 2024-01-01 at 1.00.01 PM (2)",
        "Screen Shot 2019-01-01 at 10.11.12", "Screenshot from 2024-01-01 12-00-01",
        "photo_2024-01-01_12-00-01", "anna_1600000000", "anna_20240105", "00012", "n01440764_10026",
    ],
)  # fmt: skip
def test_what_a_telephone_an_agency_or_a_clock_wrote_is_no_person(name):
    assert name_stem(Path(f"{name}.jpg")) == ""


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("anna_003", "anna"),
        ("anna_000000003", "anna"),
        ("ben (2)", "ben"),
        ("scene 12-4", "scene 12"),
        ("scene_123456_2", "scene_123456"),
        ("anna at home 7", "anna at home"),
        ("anna.99999", "anna"),
    ],
)
def test_what_stands_before_a_counter_is_a_person_or_a_scene(name, stem):
    assert name_stem(Path(f"{name}.jpg")) == stem
