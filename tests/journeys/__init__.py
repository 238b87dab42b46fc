"""The way through the real process, with a real CUPS, virtual printers and a real next hop."""
