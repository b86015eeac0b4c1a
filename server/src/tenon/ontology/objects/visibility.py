"""The part of an ontology that exists for one caller: permitted types, and properties and links under its clearance."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize, is_permitted
from tenon.kit.lru import LruCache
from tenon.ontology.objects.errors import unknown_link, unknown_property, unknown_type
from tenon.ontology.schema.contracts import LinkType, ObjectType, Ontology, Property

VIEWS_MAX = 2_000
_views: LruCache[Hashable, View] = LruCache(VIEWS_MAX)


@dataclass(frozen=True)
class VisibleType:
    """An object type with what the caller may see of it."""

    type: ObjectType
    properties: Mapping[str, Property]
    ones: Mapping[str, LinkType] = field(default_factory=dict)  # name -> link from here
    manys: Mapping[str, LinkType] = field(default_factory=dict)  # inverse name -> link to here

    @property
    def name(self) -> str:
        return self.type.name

    @cached_property
    def key_properties(self) -> tuple[Property, ...] | None:
        """The primary key, or None when part of it may not be seen."""
        if all(name in self.properties for name in self.type.primary_key):
            return self.type.key_properties
        return None

    def property(self, name: str, where: str) -> Property:
        """A visible property; raises Invalid `unknown_property`."""
        property_ = self.properties.get(name)
        if property_ is None:
            raise unknown_property(self.name, name, where)
        return property_

    def link(self, name: str) -> LinkType:
        """A visible link by its name or inverse name; raises NotFound `link_not_found`."""
        link = self.ones.get(name) or self.manys.get(name)
        if link is None:
            raise unknown_link(self.name, name)
        return link


@dataclass(frozen=True)
class View:
    """What exists for one caller."""

    ontology: Ontology
    types: Mapping[str, VisibleType]

    @cached_property
    def key(self) -> str:
        """Names tenant, version and what is visible: equal keys show equal things, whoever asks."""
        shown = [f"{self.ontology.tenant} {self.ontology.version} {self.ontology.digest}"]
        for object_type in self.types.values():
            shown.append(
                f"{object_type.name}: {','.join(object_type.properties)}; {','.join(object_type.ones)}; {','.join(object_type.manys)}"
            )
        return hashlib.sha256("\n".join(shown).encode()).hexdigest()

    @cached_property
    def by_plural(self) -> Mapping[str, VisibleType]:
        return {object_type.type.plural: object_type for object_type in self.types.values()}

    def type(self, name: str) -> VisibleType:
        """A visible type by its name or plural; raises NotFound `object_type_not_found`."""
        visible_type = self.types.get(name) or self.by_plural.get(name)
        if visible_type is None:
            raise unknown_type(name)
        return visible_type


def view_for(ctx: Context, ontology: Ontology) -> View:
    """What of `ontology` exists for `ctx`. Raises Forbidden when it may read no ontology at all (an agent's base key)."""
    # All that the policy and the markings look at; a decision that read more would have to be part of this key.
    key = (
        ontology.tenant, ontology.version, ontology.digest, ctx.principal, ctx.actor.kind, ctx.roles, ctx.clearance,
        ctx.session is not None, ctx.opens_sessions_only,
    )  # fmt: skip
    return _views.get(key) or _views.put(key, _make(ctx, ontology))


def _make(ctx: Context, ontology: Ontology) -> View:
    authorize(ctx, Action.READ_ONTOLOGY, Resource("Ontology", "current"))
    bare = {
        object_type.name: VisibleType(object_type, {item.name: item for item in object_type.properties.values() if ctx.sees(item.markings)})
        for object_type in ontology.object_types.values()
        if is_permitted(ctx, Action.READ, Resource("ObjectType", object_type.name))
    }
    links = [link for link in ontology.links if ctx.sees(link.markings) and _has_both_ends(link, bare)]
    types = {
        name: VisibleType(
            object_type.type,
            object_type.properties,
            {link.name: link for link in links if link.source == name},
            {link.inverse: link for link in links if link.target == name and link.inverse},
        )
        for name, object_type in bare.items()
    }
    return View(ontology, types)


def _has_both_ends(link: LinkType, types: Mapping[str, VisibleType]) -> bool:
    source, target = types.get(link.source), types.get(link.target)
    if source is None or target is None:
        return False
    return all(ours in source.properties and theirs in target.properties for ours, theirs in link.via)
