"""The chat page as a test uses it: what a person does there, and what they see."""

from typing import Any

PHONE = {"width": 360, "height": 720}


class Window:
    """One tab. ``wrong`` is what the browser objected to: errors of scripts, and what the page's policy forbade."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda message: self.wrong.append(message.text) if "Policy" in message.text else None)
        page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        page.goto(url)

    @property
    def prompt(self) -> Any:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def prompts(self) -> Any:
        return self.page.locator(".prompt .text")

    @property
    def answers(self) -> Any:
        """The texts of all answers, in order."""
        return self.page.locator(".answer .text")

    @property
    def alert(self) -> Any:
        return self.page.locator("#alerts .note")

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def again(self, model: str) -> Any:
        """The button that asks ``model`` again; it is there when its last answer is over."""
        return self.button(f"Retry with {model}")

    def send(self, text: str) -> None:
        self.prompt.fill(text)
        self.prompt.press("Enter")

    def ask(self, text: str, *models: str) -> None:
        """Sends, and waits until the answers are over."""
        self.send(text)
        for model in models or ("tuned",):
            self.again(model).wait_for()

    def change_settings(self, **values: str | bool) -> None:
        """By id of the field; a switch takes a bool."""
        self.button("Settings").click()
        for name, value in values.items():
            field = self.page.locator(f"#{name}")
            if isinstance(value, bool):
                field.set_checked(value)
            else:
                field.fill(value)
        self.button("Close").click()

    def from_menu(self, name: str) -> None:
        self.button("Copy or save").click()
        self.button(name).click()

    def copied(self, name: str) -> str:
        """What the clipboard has after ``name`` of the menu."""
        self.from_menu(name)
        self.page.get_by_text("Copied as").wait_for()
        return self.page.evaluate("navigator.clipboard.readText()")

    def saved(self, name: str) -> tuple[str, str]:
        """The name and the text of the file that ``name`` of the menu saves."""
        with self.page.expect_download() as download:
            self.from_menu(name)
        return download.value.suggested_filename, download.value.path().read_text("utf-8")

    def kept(self) -> str:
        """All that the tab keeps."""
        return self.page.evaluate("JSON.stringify({...sessionStorage, ...localStorage, cookie: document.cookie})")
