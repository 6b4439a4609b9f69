"""What holds for every explorable: it needs no network, fits every width, is quick, and can be used without a mouse."""

import base64
import statistics

import pytest
from PIL import Image

from tests.explorables.conftest import FIGURES


@pytest.fixture(params=FIGURES)
def name(request):
    return request.param


@pytest.mark.parametrize("width", [390, 768, 1600])
def test_fits_the_width_and_has_no_text_cut_off(shown, name, width):
    page = shown(name, width=width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = """() => [...document.querySelectorAll('.explorable button, .explorable label, .explorable td')]
      .filter((node) => node.scrollWidth > node.clientWidth + 1).map((node) => node.textContent)"""
    assert not page.evaluate(cut)


def test_an_update_takes_less_than_a_frame(shown, name):
    """Median of 200 pointer moves of the first handle, measured in the browser."""
    figure = shown(name)
    times = figure.page.evaluate(
        """() => {
          const handle = document.querySelector(".handle"), box = handle.getBoundingClientRect();
          const send = (kind, x, y) => handle.dispatchEvent(new PointerEvent(kind,
            { pointerId: 1, clientX: x, clientY: y, bubbles: true, isPrimary: true }));
          handle.setPointerCapture = () => {};
          const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
          send("pointerdown", x, y);
          return [...Array(200).keys()].map((step) => {
            const start = performance.now();
            send("pointermove", x + 20 * Math.sin(step / 9), y + 20 * Math.cos(step / 7));
            document.documentElement.getBoundingClientRect();  // the layout belongs to it
            return performance.now() - start;
          });
        }"""
    )
    assert statistics.median(times) < 16
    assert max(times) > 0


def test_a_finger_drags_a_handle_and_does_not_scroll_the_page(shown, name):
    figure = shown(name, width=390, height=500, has_touch=True, is_mobile=True)
    handle = figure.page.locator(".handle").first
    handle.scroll_into_view_if_needed()
    box, scrolled = handle.bounding_box(), figure.page.evaluate("scrollY")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    drawn = figure.page.locator(".explorable svg").evaluate_all
    before = drawn("(nodes) => nodes.map((node) => node.innerHTML)")
    finger = figure.page.context.new_cdp_session(figure.page)
    for kind, way in (("touchStart", 0), *(("touchMove", way) for way in range(4, 44, 4)), ("touchEnd", 40)):
        points = [] if kind == "touchEnd" else [{"x": x + way / 2, "y": y - way}]  # mostly upwards, as one scrolls
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert drawn("(nodes) => nodes.map((node) => node.innerHTML)") != before
    assert figure.page.evaluate("scrollY") == scrolled


def test_every_control_has_a_name_and_can_be_reached_by_tab(shown, name):
    page = shown(name).page
    controls = page.locator(".explorable").locator("input, select, button, [tabindex]")
    reached = set()
    for _ in range(controls.count() + 2):
        page.keyboard.press("Tab")
        reached.add(controls.evaluate_all("(nodes) => nodes.indexOf(document.activeElement)"))
    assert reached - {-1} == set(range(controls.count()))
    for number in range(controls.count()):
        control = controls.nth(number)
        assert control.evaluate("(node) => node.labels?.length || node.ariaLabel || node.textContent.trim()")


def test_where_nothing_runs_there_is_an_image_and_what_it_shows(name):
    kind = FIGURES[name]
    data, metadata = kind.example()._repr_mimebundle_()
    assert data["text/plain"] == metadata["image/jpeg"]["alt"] == kind.alt != ""
    assert base64.b64decode(data["image/jpeg"]) == kind.still().read_bytes()
    with Image.open(kind.still()) as still:
        assert still.width >= 900
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"]


def test_nothing_moves_on_its_own_and_colors_follow_the_theme(shown, name):
    still = shown(name, reduced_motion="reduce").page
    assert not still.evaluate("document.getAnimations().length")
    ink = "getComputedStyle(document.querySelector('.explorable')).color"
    assert shown(name, color_scheme="dark").page.evaluate(ink) != shown(name, color_scheme="light").page.evaluate(ink)


def test_a_figure_that_is_taken_away_no_longer_answers(shown, name):
    figure = shown(name)
    figure.run(f"{name}.explorable.remove(); model.set('found', {{}}); model.set('image', model.get('image'))")
    assert figure.page.locator(".explorable").count() == 0
    assert figure.state("found") == {}
