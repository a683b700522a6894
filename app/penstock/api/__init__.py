"""The front door: who may ask, what was asked, what is answered. The only room with aiohttp.web."""
